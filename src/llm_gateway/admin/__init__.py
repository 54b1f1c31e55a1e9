"""The operator plane: what the operator knows of the workers, and what it answers. Importing this package does nothing."""
