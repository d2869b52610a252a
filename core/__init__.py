"""What every other package builds on: settings, errors, specs, files, processes, progress, reuse."""
