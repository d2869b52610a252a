"""One KFP component a file: a signature, a docstring, a few lines that call the library.

Every component takes `overrides`, a dict by step name (`{"fine_tune": {"sequence_length": 512}}`), for the fields
of its spec that the form does not show; and gives `result`, a JSON artifact that the report reads.
"""
