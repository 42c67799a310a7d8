"""KITTI's two greedy matching passes, as step functions that give the counts at any score threshold.

Pass one of the official program goes over all frames and finds 41 score thresholds. Pass two matches every frame again
at each threshold. A frame's counts at a threshold depend only on its detections that reach the threshold. They are
therefore a step function of the threshold, which changes only at the frame's own scores. This function is computed
once here. Any multiset of frames is then scored by adding steps (`curves.py`).

A truth is a ground-truth object. Truths and detections that no chain of candidate pairs connects do not influence each
other. The passes therefore run on connected groups, for all groups of all frames in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

LARGE_GROUP = 64  # detections; in larger groups, matching at every level would take quadratic time


@dataclass(frozen=True)
class Pairs:
    """Pairs of a truth and a detection of the same frame that may be matched.

    `truth` and `detection` are rows of the stacked truths and detections of all frames, which are in file order.
    """

    truth: np.ndarray  # (P,) int64
    detection: np.ndarray  # (P,) int64
    overlap: np.ndarray  # (P,) float64

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, rows: np.ndarray) -> Pairs:
        return Pairs(self.truth[rows], self.detection[rows], self.overlap[rows])


@dataclass(frozen=True)
class Steps:
    """The counts of one class at one difficulty and overlap limit, as changes at detections.

    When the threshold falls to the score of `detections[s]`, the counts change by `hits[s]`, `misses[s]` and
    `similarity[s]`.
    """

    first_hits: np.ndarray  # (H,) true positives of pass one, whose scores give the thresholds
    detections: np.ndarray  # (S,) ascending
    hits: np.ndarray  # (S,) true positives
    misses: np.ndarray  # (S,) false positives
    similarity: np.ndarray  # (S,) sum of orientation similarities of the true positives


def count_steps(
    pairs: Pairs,
    scores: np.ndarray,
    counted: np.ndarray,
    regular: np.ndarray,
    forgiven: np.ndarray,
    similarity: np.ndarray | None = None,
) -> Steps:
    """Steps of one class from the P `pairs` above the overlap limit, for N detections with `scores` (N,) and T truths.

    `counted` (T,) bool: truths that are hit or missed; all other truths only absorb detections.
    `regular` (N,) bool: detections that are hits or false positives; all others in `pairs` are neutral.
    `forgiven` (N,) bool: detections that are no false positives if unmatched.
    `similarity` (P,): orientation similarity of each pair.
    """
    hits = np.zeros(len(scores), dtype=np.int64)
    misses = (regular & ~forgiven).astype(np.int64)
    total_similarity = np.zeros(len(scores))
    first_hits = np.zeros(0, dtype=np.int64)
    if len(pairs):
        group, turn = _groups(pairs, len(counted), len(scores))
        taken = _first_pass(pairs, group, turn, scores)
        first_hits = np.sort(pairs.detection[taken & counted[pairs.truth] & regular[pairs.detection]])

    # In pass two, a truth takes a neutral detection only if it finds no regular one. It then counts as not hit, so
    # pairs with neutral detections can be left out.
    rows = np.flatnonzero(regular[pairs.detection])
    if len(rows):
        pairs = pairs[rows]
        group, turn = _groups(pairs, len(counted), len(scores))
        levels = _levels(pairs.detection, group, scores)
        at = levels.detection
        is_hit, is_used = counted[pairs.truth], ~forgiven[pairs.detection]
        amounts = None if similarity is None else similarity[rows]
        is_large = levels.is_in_large_group
        small, large = np.flatnonzero(~is_large), np.flatnonzero(is_large)
        if len(small):
            level, pair = _second_pass(pairs, turn, levels, small)
            hits[at] += levels.changes(level[is_hit[pair]])
            misses[at] -= levels.changes(level[is_used[pair]])
            if amounts is not None:
                total_similarity[at] += levels.changes(level[is_hit[pair]], amounts[pair[is_hit[pair]]])
        if len(large):
            level, pair, change = _second_pass_one_by_one(pairs, turn, levels, large)
            np.add.at(hits, at[level], change * is_hit[pair])
            np.add.at(misses, at[level], -change * is_used[pair])
            if amounts is not None:
                np.add.at(total_similarity, at[level], change * is_hit[pair] * amounts[pair])
    rows = np.flatnonzero((hits != 0) | (misses != 0) | (total_similarity != 0))
    return Steps(first_hits, rows, hits[rows], misses[rows], total_similarity[rows])


def _groups(pairs: Pairs, num_truths: int, num_detections: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pair: its connected group, and the turn of its truth within the group (truths choose in file order).
    Both are (P,) int64.
    """
    size = num_truths + num_detections
    edges = coo_matrix(
        (np.ones(len(pairs), dtype=np.int8), (pairs.truth, num_truths + pairs.detection)), shape=(size, size)
    )
    _, component = connected_components(edges, directed=False)
    truths, pair_truth = np.unique(pairs.truth, return_inverse=True)
    order = np.argsort(component[truths], kind="stable")
    ordered = component[truths][order]
    turn = np.empty(len(truths), dtype=np.int64)
    turn[order] = np.arange(len(truths)) - np.searchsorted(ordered, ordered)
    return component[pairs.truth], turn[pair_truth]


def _first_pass(pairs: Pairs, group: np.ndarray, turn: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Pass one, over all detections: each truth takes the free candidate with the highest score (at equal scores, the
    first in the file). Returns which pairs are taken: (P,) bool.
    """
    order = np.lexsort((pairs.detection, -scores[pairs.detection], group, turn))
    taken = np.zeros(len(pairs), dtype=bool)
    taken[order] = _take_in_turn(turn[order], group[order], pairs.detection[order], len(scores))
    return taken


@dataclass(frozen=True)
class _Levels:
    """The detections of each group, best first, one group after the other; each detection is one level.

    At a level, the detections of the group up to this one take part in the matching. Equal scores have separate levels,
    but no threshold falls between them, so only the sum of their changes counts.
    """

    group: np.ndarray  # (L,) int64
    detection: np.ndarray  # (L,) int64
    of_pair: np.ndarray  # (P,) level of the pair's detection
    end_of_pair: np.ndarray  # (P,) one past the last level of the pair's group
    slot_of_pair: np.ndarray  # (P,) index of the pair's detection in its group
    first_slot: np.ndarray  # (L + 1,) first slot of each level, which has one slot for every detection of its group

    @property
    def is_in_large_group(self) -> np.ndarray:
        """Whether the pair's group has too many detections to be matched again at every level: (P,) bool."""
        return np.diff(self.first_slot)[self.of_pair] > LARGE_GROUP

    def changes(self, level: np.ndarray, amounts: np.ndarray | None = None) -> np.ndarray:
        """Sum of `amounts` (default: 1 each) at each level minus the sum at the previous level of the group: (L,)."""
        total = np.bincount(level, weights=amounts, minlength=len(self.group))
        before = np.concatenate([[0], total[:-1]])
        before[np.flatnonzero(np.diff(self.group, prepend=-1))] = 0
        return total - before


def _levels(pair_detection: np.ndarray, pair_group: np.ndarray, scores: np.ndarray) -> _Levels:
    detections, first, pair_row = np.unique(pair_detection, return_index=True, return_inverse=True)
    order = np.lexsort((detections, -scores[detections], pair_group[first]))
    group = pair_group[first][order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    of_pair = place[pair_row]
    group_size = np.searchsorted(group, group, side="right") - np.searchsorted(group, group)
    return _Levels(
        group=group,
        detection=detections[order],
        of_pair=of_pair,
        end_of_pair=np.searchsorted(group, pair_group, side="right"),
        slot_of_pair=of_pair - np.searchsorted(group, pair_group),
        first_slot=np.concatenate([[0], np.cumsum(group_size)]),
    )


def _second_pass(pairs: Pairs, turn: np.ndarray, levels: _Levels, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pass two at every level, among the detections that reach its score: M matches as levels (M,) and pairs (M,).

    Each truth takes the free candidate with the largest overlap (at equal overlaps, the first in the file). `chosen`
    are the rows of the pairs to match.
    """
    preference = _preference(pairs)
    repeats = (levels.end_of_pair - levels.of_pair)[chosen]
    pair = np.repeat(chosen, repeats)
    level = np.arange(len(pair)) - np.repeat(np.cumsum(repeats) - repeats - levels.of_pair[chosen], repeats)
    order = np.lexsort((preference[pair], level, turn[pair]))
    pair, level = pair[order], level[order]
    slot = levels.first_slot[level] + levels.slot_of_pair[pair]
    taken = _take_in_turn(turn[pair], level, slot, int(levels.first_slot[-1]))
    return level[taken], pair[taken]


def _second_pass_one_by_one(
    pairs: Pairs, turn: np.ndarray, levels: _Levels, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pass two for groups with many detections, where matching all of them at every level would take quadratic time and
    memory.

    Returns M changes as levels (M,), pairs (M,), and 1 if the pair is taken from that level on or -1 if it is released.
    The detection that joins at a level is offered to the truths in turn. A truth that prefers it takes it and releases
    the detection it had, which is then offered to the later truths. The matches of all other truths stay the same.
    """
    preference = _preference(pairs).tolist()
    truth_of, detection_of, turn_of = pairs.truth.tolist(), pairs.detection.tolist(), turn.tolist()
    candidates: dict[int, list[int]] = {}  # detection -> its pairs, in the turn of their truths
    for pair in chosen[np.argsort(turn[chosen], kind="stable")].tolist():
        candidates.setdefault(detection_of[pair], []).append(pair)
    taken: dict[int, int] = {}  # truth -> pair
    changes: list[tuple[int, int, int]] = []
    for level in np.unique(levels.of_pair[chosen]).tolist():
        offered: int | None = int(levels.detection[level])
        last_turn = -1
        while offered is not None:
            pair = next(
                (
                    p
                    for p in candidates[offered]
                    if turn_of[p] > last_turn and _prefers(p, taken.get(truth_of[p]), preference)
                ),
                None,
            )
            offered = None
            if pair is not None:
                changes.append((level, pair, 1))
                before = taken.get(truth_of[pair])
                taken[truth_of[pair]] = pair
                last_turn = turn_of[pair]
                if before is not None:
                    changes.append((level, before, -1))
                    offered = detection_of[before]
    level_column, pair_column, change_column = np.array(changes, dtype=np.int64).reshape(-1, 3).T
    return level_column, pair_column, change_column


def _prefers(pair: int, held: int | None, preference: list[int]) -> bool:
    return held is None or preference[pair] < preference[held]


def _preference(pairs: Pairs) -> np.ndarray:
    """Rank of each pair (P,): by falling overlap; at equal overlaps, by the detections' order in the file."""
    preference = np.empty(len(pairs), dtype=np.int64)
    preference[np.lexsort((pairs.detection, -pairs.overlap))] = np.arange(len(pairs))
    return preference


def _take_in_turn(turn: np.ndarray, arena: np.ndarray, slot: np.ndarray, num_slots: int) -> np.ndarray:
    """Which rows are taken: (R,) bool. The rows must be sorted by `turn`, then `arena`, then preference.

    In each turn, every arena (an independent matching) takes the first of its rows whose slot is still free. Arenas
    share no slots.
    """
    occupied = np.zeros(num_slots, dtype=bool)
    taken = np.zeros(len(turn), dtype=bool)
    bounds = np.searchsorted(turn, np.arange(turn[-1] + 2))
    for start, stop in pairwise(bounds):
        free = start + np.flatnonzero(~occupied[slot[start:stop]])
        chosen = free[np.diff(arena[free], prepend=-1) != 0]
        taken[chosen] = True
        occupied[slot[chosen]] = True
    return taken
