"""One operator a file where speed matters.

A file holds the plain form, the faster forms and one dispatch, which has the operator's name and picks a form by device
or shape. It says when which form runs, and how often the form for a GPU makes the host wait. To add an operator, write
such a file, its slow twin under tests/reference, and its line in tests/ops/kernels/table.py, by which
tests/ops/kernels/test_contract.py tests it.
"""
