"""One module a kind of architecture: from the fields of a config to its layers."""
