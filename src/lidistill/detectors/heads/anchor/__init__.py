"""Anchors: boxes on the cells of a map that stand for objects."""
