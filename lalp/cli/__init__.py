"""The `lalp` command."""
