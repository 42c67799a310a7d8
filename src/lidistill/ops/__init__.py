"""Pure functions on tensors and arrays: boxes and their codes, heat maps, regions, cells of grids, layers of a network.

Operators whose speed matters are in `kernels`.
"""
