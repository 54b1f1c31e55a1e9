"""Processes: who is started, restarted and told to stop, and how they talk. Importing this package does nothing."""
