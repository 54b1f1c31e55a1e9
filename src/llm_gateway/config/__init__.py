"""Configuration: files and variables -> checked sections -> one immutable snapshot. Importing this package does nothing."""
