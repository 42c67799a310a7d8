"""Pure functions on tensors and arrays: boxes, overlaps, suppression, voxels, neighbours, camera geometry."""
