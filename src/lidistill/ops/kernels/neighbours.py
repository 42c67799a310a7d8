"""Nearest neighbours in feature space, exact and deterministic.

The plain form computes the distance of every query to every row. The sifted form first computes approximate distances
by a matrix product, which is fast, but rounded differently from machine to machine. A bound on that rounding gives the
rows that could be among the nearest. Their distances are computed again from the plain differences, and these decide;
ties go to the lower row. So the result does not depend on the size of the chunks, on TF32 or on the matrix library.

The sifted form runs on every device. The number of rows that could be among the nearest depends on the values, so the
host waits for the device WAITS_A_CALL times per call and WAITS_A_CHUNK times per chunk of queries; with groups,
WAITS_A_GROUPING times more and once more for each group. The plain form never waits, but computes all N * M distances
in full.
"""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY_BYTES = 128 << 20
BYTES_PER_CELL = 64  # for each distance of a chunk if every row ties: distance, flag, pair, sort keys
FAR = 1e30  # stands for infinity inside the matrix product, where 0 * inf would be NaN
WAITS_A_CALL = 2  # which rows are the first of their copies, and which copies are kept
WAITS_A_CHUNK = 2  # which pairs pass the sieve, and the largest number of them that a query has
WAITS_A_GROUPING = 2  # the distinct groups of the queries, and where their rows start and end


def k_nearest(
    queries: Tensor,
    database: Tensor,
    k: int,
    query_groups: Tensor | None = None,
    database_groups: Tensor | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Tensor:
    """The k rows of the database (M, C) nearest to each of the queries (N, C): (N, k) int64, nearest first, equal
    distances by row.

    The distance is squared Euclidean, taken in float32. With `query_groups` (N,) and `database_groups` (M,) int64, the
    latter ascending, a query meets only rows of its own group. `k` is clamped to the smallest number of rows that any
    query can choose from. A row with a NaN or an infinity is infinitely far from everything. There is no gradient.
    Memory beyond the result stays near `memory_bytes`.
    """
    queries, database = _scaled(queries.detach().float(), database.detach().float())
    if query_groups is None or database_groups is None:
        return sifted_nearest(queries, database, min(k, len(database)), memory_bytes)
    groups = torch.unique(query_groups)
    starts, ends = (torch.searchsorted(database_groups, groups, right=right) for right in (False, True))
    bounds = torch.stack([starts, ends], dim=1).tolist()
    k = min([k, *(end - start for start, end in bounds)])
    nearest = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    for group, (start, end) in zip(groups, bounds, strict=True):
        rows = (query_groups == group).nonzero()[:, 0]
        nearest[rows] = sifted_nearest(queries[rows], database[start:end], k, memory_bytes) + start
    return nearest


def plain_nearest(queries: Tensor, database: Tensor, k: int, memory_bytes: int = MEMORY_BYTES) -> Tensor:
    """`k_nearest` without groups, k <= M, from all distances."""
    step = max(1, memory_bytes // (BYTES_PER_CELL * max(1, len(database)) * max(1, queries.shape[1])))
    columns = torch.arange(len(database), device=database.device)
    parts = []
    for part in queries.split(step):
        difference = database - part[:, None]
        distances = (difference * difference).sum(dim=2).nan_to_num(nan=torch.inf, posinf=torch.inf)
        parts.append(_keys(distances, columns).topk(k, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF)
    return torch.cat(parts)


def sifted_nearest(queries: Tensor, database: Tensor, k: int, memory_bytes: int = MEMORY_BYTES) -> Tensor:
    """`k_nearest` without groups, k <= M, for features whose squares neither overflow nor vanish."""
    nearest = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    if nearest.numel() == 0:
        return nearest
    kept = _without_surplus_copies(database, k)
    database = database.index_select(0, kept)
    rounding = _rounding(database)
    centre, right = _right_factor(database, rounding)
    step = max(1, memory_bytes // (BYTES_PER_CELL * len(database)))
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        rows, columns = _candidates(part - centre, right, rounding, k)
        distances = _distances(part, database, rows, columns, memory_bytes)
        nearest[start : start + step] = kept[_first_k(rows, columns, distances, len(part), k)]
    return nearest


def _scaled(queries: Tensor, database: Tensor) -> tuple[Tensor, Tensor]:
    """Both (N, C) and (M, C) divided by one power of two, which is exact, so that no square overflows or vanishes."""
    values = torch.cat([queries.flatten(), database.flatten(), queries.new_zeros(1)])
    exponent = torch.frexp(values.nan_to_num(0.0, 0.0, 0.0).abs().max()).exponent
    # 2**-exponent by its bits, which is exact on every device and does not leave it
    scale = (127 - exponent.clamp(-100, 100)).bitwise_left_shift(23).view(torch.float32)
    return queries * scale, database * scale


def _without_surplus_copies(database: Tensor, k: int) -> Tensor:
    """Rows of the database (M, C) without those that repeat k earlier ones, which can never be chosen: (M',) int64,
    ascending.

    Dead features make thousands of equal rows, all of them candidates of every query. A sort by checksum puts equal
    rows side by side; if two checksums collide, a copy may stay, which only costs time.
    """
    bits = (database + 0.0).view(torch.int32).long()  # -0 becomes 0
    order = torch.sort((bits * _checksum_weights(bits)).sum(dim=1), stable=True).indices
    ordered = database.index_select(0, order)
    fresh = torch.ones(len(order), dtype=torch.bool, device=order.device)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(dim=1)
    places = torch.arange(len(order), device=order.device)
    copies_before = places - places[fresh][fresh.cumsum(0) - 1]
    return torch.sort(order[copies_before < k]).values


def _checksum_weights(bits: Tensor) -> Tensor:
    """A fixed mixture of bits for each column of (M, C): (C,) int64 (splitmix64: Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = torch.arange(1, bits.shape[1] + 1, device=bits.device) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ mixed.bitwise_right_shift(shift)) * factor
    return mixed | 1


def _right_factor(database: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """Mean (C,) of the finite rows of the database (M, C), and the right factor (C + 1, M) of the product with centred
    queries.
    """
    sound = database.isfinite().all(dim=1, keepdim=True)
    centre = database.masked_fill(~sound, 0).mean(dim=0)
    centred = (database - centre).masked_fill(~sound, 0)
    offsets = ((centred * centred).sum(dim=1, keepdim=True) * (1 - rounding)).masked_fill(~sound, FAR)
    return centre, torch.cat([-2 * centred, offsets], dim=1).T.contiguous()


def _candidates(queries: Tensor, right: Tensor, rounding: float, k: int) -> tuple[Tensor, Tensor]:
    """Pairs of a row of centred queries (n, C) and a database row that may be among its k nearest, in ascending order:
    two (K,) int64.

    With D the true squared distance and e the relative rounding, the product gives a lower bound L = |d|^2 (1 - e) - 2
    q.d <= D - |q|^2 (1 - e). The columns are split into at least k groups; each group's least L belongs to a row with D
    (1 - 4 e) <= L + |q|^2 (1 + 5 e), because |d|^2 <= 2 |q|^2 + 2 D. The k-th least of these values bounds the k-th
    distance.
    """
    sound = queries.isfinite().all(dim=1, keepdim=True)
    squares = (queries * queries).sum(dim=1).double()
    left = torch.cat([queries.masked_fill(~sound, 0), torch.ones_like(queries[:, :1])], dim=1)
    with torch.autocast(queries.device.type, enabled=False):
        least = left @ right

    # interleaved, so that neighbouring rows, which are often alike, fall into different groups
    depth = max(1, right.shape[1] // (4 * k))
    num_groups = right.shape[1] // depth
    group_least = least[:, : num_groups * depth].unflatten(1, (depth, num_groups)).amin(dim=1)
    kth_least = group_least.topk(k, dim=1, largest=False).values[:, -1].double()
    kth_distance = ((kth_least + squares * (1 + 5 * rounding)) / (1 - 4 * rounding)).clamp(min=1e-30)
    bound = kth_distance * (1 + rounding) - squares * (1 - rounding)
    bound = (bound + bound.abs() * rounding).masked_fill(~sound[:, 0], torch.inf).float()
    return (least <= bound[:, None]).nonzero(as_tuple=True)  # the host waits for the number of pairs


def _rounding(features: Tensor) -> float:
    """Bound on the rounding of a product of rows (M, C), relative to the squares of their lengths, whatever the matrix
    library may do.
    """
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set separately for each backend
        precision = "medium"
    inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-8}[precision]  # TF32, bfloat16
    return min(0.1, 4 * inputs + (features.shape[1] + 16) * 2.0**-23)


def _distances(queries: Tensor, database: Tensor, rows: Tensor, columns: Tensor, memory_bytes: int) -> Tensor:
    """Squared distance of the paired rows of (n, C) and (M, C): (K,) float32, infinite where a row is not finite."""
    step = max(1, memory_bytes // (16 * max(1, queries.shape[1])))
    parts = []
    for row, column in zip(rows.split(step), columns.split(step), strict=True):
        difference = database.index_select(0, column) - queries.index_select(0, row)
        parts.append((difference * difference).sum(dim=1))
    return torch.cat(parts).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _first_k(rows: Tensor, columns: Tensor, distances: Tensor, num_queries: int, k: int) -> Tensor:
    """Columns of the k least distances of each row, equal ones by column, from pairs (K,) in ascending order of rows:
    (num_queries, k) int64.
    """
    starts = torch.searchsorted(rows, torch.arange(num_queries + 1, device=rows.device))
    place = torch.arange(len(rows), device=rows.device) - starts[rows]
    most = int(starts.diff().max())  # the host waits for the width of the table
    keys = torch.full((num_queries, most), torch.iinfo(torch.int64).max, device=rows.device)
    keys[rows, place] = _keys(distances, columns)
    return keys.topk(k, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF


def _keys(distances: Tensor, columns: Tensor) -> Tensor:
    """Integers in the order of distances (..., M), equal ones in that of columns (M,): (..., M) int64.

    The bits of a float that is not negative, read as an integer, keep its order. The column is in the lower half.
    """
    return (distances.view(torch.int32).long() << 32) | columns
