"""The `goldpath` command."""
