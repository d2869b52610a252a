"""Pipelines, one file each, and what is done with them: compile, run, publish, schedule."""
