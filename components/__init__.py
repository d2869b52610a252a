"""One KFP component a file: a signature, a docstring, a few lines that call the library."""
