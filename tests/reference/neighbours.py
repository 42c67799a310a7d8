"""Nearest neighbours by sorting every distance, in float64."""

import math


def k_nearest(queries, database, k):
    """For each query the k rows with the least (distance, row)."""
    nearest = []
    for query in queries.double().tolist():
        keys = []
        for row, entry in enumerate(database.double().tolist()):
            distance = sum((a - b) ** 2 for a, b in zip(query, entry, strict=True))
            keys.append((distance if math.isfinite(distance) else math.inf, row))
        nearest.append([row for _, row in sorted(keys)[:k]])
    return nearest
