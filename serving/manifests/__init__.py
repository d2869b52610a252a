"""Pure functions from a spec to KServe's objects, and from live objects to what they say. No I/O.

The objects of a list are in the order in which they have to be created.
"""
