"""Jinja templates and the stylesheet of the report and its fragments."""
