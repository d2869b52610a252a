"""What a cluster must have for the golden path: the table of it, and the checks that hold a cluster against it."""
