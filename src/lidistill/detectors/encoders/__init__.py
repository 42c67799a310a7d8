"""Voxels -> features of pillars or voxels, and the bird's-eye view map made of them."""
