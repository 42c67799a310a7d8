"""Operators whose speed matters, one per file.

A file holds the plain form, the faster forms, and one dispatching function with the operator's name, which picks a form
by device or shape. Its docstring says when each form runs, and how often the form for a GPU makes the host wait. To add
an operator, write such a file, a slow reference under tests/reference, and an entry in tests/ops/kernels/table.py, with
which tests/ops/kernels/test_contract.py tests it.
"""
