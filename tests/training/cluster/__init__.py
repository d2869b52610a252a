"""The training backend against a played cluster."""
