"""Where endpoints run."""
