"""Centres: cells of a heat map that stand for objects."""
