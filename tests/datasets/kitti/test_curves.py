import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.datasets.kitti.curves import FrameCounts, average, score_thresholds
from tests.reference.kitti_metric import walk_thresholds


@settings(derandomize=True, deadline=None, max_examples=300)
@given(truths=st.integers(1, 3000), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_thresholds_are_those_of_the_walk(truths, share, seed):
    rng = np.random.default_rng(seed)
    hits = np.sort(rng.integers(50, size=round(share * truths)) / 50)[::-1]
    thresholds = score_thresholds(hits, np.ones(len(hits), dtype=np.int64), truths)
    assert thresholds.tolist() == walk_thresholds(hits.tolist(), truths)
    assert len(thresholds) <= 41


@pytest.mark.parametrize("truths", [*range(1, 130), 12345, 14385])
def test_thresholds_of_every_hit_count_are_those_of_the_walk(truths):
    for hits in {1, truths // 3, truths // 2, truths - 1, truths} - {0}:
        scores = np.linspace(1, 0, hits)
        assert score_thresholds(scores, np.ones(hits, dtype=np.int64), truths).tolist() == walk_thresholds(
            scores.tolist(), truths
        )


@pytest.mark.parametrize("seed", range(5))
def test_repeated_hits_are_walked_once_each(seed):
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.random(200))[::-1]
    repeats = rng.integers(0, 4, size=200)
    repeated = np.repeat(scores, repeats).tolist()
    assert score_thresholds(scores, repeats, 500).tolist() == walk_thresholds(repeated, 500)


def test_no_hit_has_no_threshold():
    assert len(score_thresholds(np.zeros(0), np.zeros(0, dtype=np.int64), 10)) == 0
    assert len(score_thresholds(np.zeros(0), np.zeros(0, dtype=np.int64), 0)) == 0
    assert len(score_thresholds(np.array([0.5]), np.array([0]), 10)) == 0


def counts(hit_scores, step_scores, hits, misses, truths=(100,), similarity=None):
    return FrameCounts(
        truths=np.array(truths),
        hit_scores=np.array(hit_scores, dtype=float),
        hit_frames=np.zeros(len(hit_scores), dtype=int),
        step_scores=np.array(step_scores, dtype=float),
        step_frames=np.zeros(len(step_scores), dtype=int),
        step_hits=np.array(hits),
        step_misses=np.array(misses),
        step_similarity=similarity,
    )


ONCE = np.array([1])


def test_precision_never_rises_with_recall_and_ends_at_the_last_threshold():
    curve = counts([0.9, 0.5], [0.9, 0.7, 0.5], [1, 0, 1], [0, 2, 0]).precision(ONCE)
    assert curve[:2].tolist() == [1.0, 0.5]
    assert not curve[2:].any()


def test_a_detection_at_the_threshold_reaches_it():
    assert counts([0.5], [0.5, 0.5], [1, 0], [0, 1]).precision(ONCE)[0] == 0.5


def test_a_threshold_at_which_nothing_counts_is_0():
    assert not counts([0.5], [], [], []).precision(ONCE).any()


def test_orientation_is_the_mean_similarity_of_all_detections():
    curve = counts([0.9], [0.9, 0.9], [1, 0], [0, 1], similarity=np.array([0.8, 0.0])).orientation(ONCE)
    assert curve[0] == pytest.approx(0.4)


def test_orientation_needs_similarities():
    with pytest.raises(ValueError, match="in the image only"):
        counts([0.9], [0.9], [1], [0]).orientation(ONCE)


def test_r11_takes_every_fourth_point_and_r40_all_but_the_first():
    curve = np.arange(41.0)[::-1] / 40
    assert average(curve, "R11") == pytest.approx(100 * np.mean(1 - np.arange(11) / 10))
    assert average(curve, "R40") == pytest.approx(100 * np.mean(1 - np.arange(1, 41) / 40))
