"""Pictures and pages: charts, step summaries, the report of a run."""
