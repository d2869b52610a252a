"""Where training runs: `local` (child processes) or `kubernetes` (TrainJobs)."""
