import tracemalloc

import numpy as np
import pytest

from lidistill.datasets.kitti import greedy_matching
from lidistill.datasets.kitti.greedy_matching import Pairs, count_steps
from tests.reference.kitti_metric import match

LIMIT = 0.5


def random_frame(rng, truths, detections, levels):
    """Overlap (T, D) and roles; scores and overlaps take few values, so that ties are common."""
    return {
        "overlap": np.round(rng.random((truths, detections)) * rng.random(), 1 if rng.random() < 0.5 else 3),
        "truth_roles": rng.choice([0, 0, 1], size=truths),
        "found_roles": rng.choice([0, 0, 0, 1], size=detections),
        "forgiven": rng.random(detections) < 0.2,
        "scores": rng.integers(levels, size=detections) / levels,
        "similarity": rng.random((truths, detections)),
    }


def steps_of(frames):
    """count_steps of frames side by side."""
    first_truth = np.cumsum([0, *(len(frame["truth_roles"]) for frame in frames)])
    first_found = np.cumsum([0, *(len(frame["found_roles"]) for frame in frames)])
    places = [np.nonzero(frame["overlap"] > LIMIT) for frame in frames]
    pairs = Pairs(
        np.concatenate([t + start for (t, _), start in zip(places, first_truth, strict=False)]),
        np.concatenate([d + start for (_, d), start in zip(places, first_found, strict=False)]),
        np.concatenate([frame["overlap"][place] for frame, place in zip(frames, places, strict=True)]),
    )
    order = np.random.default_rng(0).permutation(len(pairs))  # the order of the pairs means nothing
    similarity = np.concatenate([frame["similarity"][place] for frame, place in zip(frames, places, strict=True)])
    column = {
        name: np.concatenate([frame[name] for frame in frames])
        for name in ("truth_roles", "found_roles", "forgiven", "scores")
    }
    counted, regular = column["truth_roles"] == 0, column["found_roles"] == 0
    return count_steps(pairs[order], column["scores"], counted, regular, column["forgiven"], similarity[order]), column[
        "scores"
    ]


def twin(frame, threshold):
    roles = {name: frame[name] for name in ("truth_roles", "found_roles", "forgiven", "scores")}
    return match(frame["overlap"], LIMIT, threshold, **roles)


@pytest.mark.parametrize("large_group", [greedy_matching.LARGE_GROUP, 2, 0])
@pytest.mark.parametrize("seed", range(60))
def test_steps_add_up_to_the_counts_of_a_fresh_match_at_every_threshold(seed, large_group, monkeypatch):
    monkeypatch.setattr(greedy_matching, "LARGE_GROUP", large_group)
    rng = np.random.default_rng(seed)
    frames = [
        random_frame(rng, rng.integers(0, 6), rng.integers(0, 9), levels=int(rng.choice([2, 5, 1000])))
        for _ in range(4)
    ]
    steps, scores = steps_of(frames)
    first_hits = [frame["scores"][d] for frame in frames for _, d in twin(frame, None)[0]]
    assert sorted(scores[steps.first_hits]) == sorted(first_hits)
    at_scores = np.unique(scores)
    for threshold in [-1.0, *at_scores, *(at_scores + 1e-9)]:
        reached = scores[steps.detections] >= threshold
        results = [(frame, *twin(frame, threshold)) for frame in frames]
        assert steps.hits[reached].sum() == sum(len(hits) for _, hits, _, _ in results)
        assert steps.misses[reached].sum() == sum(len(false) for _, _, false, _ in results)
        similarity = sum(frame["similarity"][t, d] for frame, hits, _, _ in results for t, d in hits)
        assert steps.similarity[reached].sum() == pytest.approx(similarity, abs=1e-12)


def test_detections_without_a_pair_are_false_positives_unless_neutral_or_forgiven():
    none = np.zeros(0, dtype=np.int64)
    regular, forgiven = np.array([True, True, False, False]), np.array([False, True, False, True])
    steps = count_steps(Pairs(none, none, np.zeros(0)), np.full(4, 0.5), np.zeros(0, dtype=bool), regular, forgiven)
    assert steps.detections.tolist() == [0]
    assert steps.misses.tolist() == [1]
    assert len(steps.first_hits) == 0


def test_nothing_has_no_step():
    none = np.zeros(0, dtype=np.int64)
    steps = count_steps(
        Pairs(none, none, np.zeros(0)), np.zeros(0), none.astype(bool), none.astype(bool), none.astype(bool)
    )
    assert len(steps.detections) == len(steps.hits) == len(steps.misses) == len(steps.similarity) == 0


def test_a_lower_detection_may_come_in_without_a_hit():
    """Truth 0 leaves detection 1 for the lower detection 0, which was the only one for truth 1."""
    pairs = Pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.6, 0.8]))
    scores = np.array([0.3, 0.7])
    steps = count_steps(pairs, scores, np.array([True, True]), np.array([True, True]), np.zeros(2, dtype=bool))
    changes = dict(
        zip(scores[steps.detections], zip(steps.hits.tolist(), steps.misses.tolist(), strict=True), strict=True)
    )
    assert changes == {0.7: (1, 0), 0.3: (0, 1)}


def test_hundreds_of_detections_on_one_object_leave_one_hit():
    count = 500
    pairs = Pairs(np.zeros(count, dtype=np.int64), np.arange(count), np.linspace(0.6, 0.9, count))
    scores = np.linspace(1, 0, count)
    steps = count_steps(pairs, scores, np.array([True]), np.ones(count, dtype=bool), np.zeros(count, dtype=bool))
    assert scores[steps.first_hits].tolist() == [1.0]
    assert steps.hits.sum() == 1
    assert np.cumsum(steps.misses).tolist() == list(range(count))


def test_thousands_of_detections_on_a_few_objects_take_little_memory():
    """Their number squared would be 144 million, times five objects."""
    detections, truths = 12_000, 5
    rng = np.random.default_rng(0)
    pairs = Pairs(
        np.repeat(np.arange(truths), detections),
        np.tile(np.arange(detections), truths),
        rng.uniform(0.6, 0.9, truths * detections),
    )
    tracemalloc.start()
    steps = count_steps(
        pairs,
        rng.random(detections),
        np.ones(truths, dtype=bool),
        np.ones(detections, dtype=bool),
        np.zeros(detections, dtype=bool),
    )
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert steps.hits.sum() == truths and steps.misses.sum() == detections - truths
