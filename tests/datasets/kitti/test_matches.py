import dataclasses

import numpy as np
import pytest

from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.metric import evaluate_objects, match_frames
from lidistill.datasets.kitti.score_names import MAIN, score_keys
from lidistill.datasets.kitti.scores import scores_from_matches
from lidistill.types import InputError
from tests.evaluation.kitti_scenes import objects, street

CLASSES = ("Car", "Pedestrian", "Cyclist")


@pytest.fixture(scope="module")
def a_street():
    return street(np.random.default_rng(5), 25)


@pytest.fixture(scope="module")
def matches(a_street):
    return match_frames(*a_street, CLASSES)


@pytest.mark.parametrize("seed", range(8))
def test_a_multiset_of_frames_scores_as_the_repeated_frames_do(a_street, matches, seed):
    truths, found = a_street
    rows = np.random.default_rng(seed).integers(25, size=[1, 5, 25, 90][seed % 4])
    repeated = evaluate_objects([truths[i] for i in rows], [found[i] for i in rows], CLASSES)
    drawn = scores_from_matches(matches, rows)
    assert drawn.counts == repeated.counts
    assert drawn.curves == repeated.curves
    for key, value in repeated.values.items():
        if "/aos/" in key:  # similarities are no whole numbers, so their sums depend on the order
            assert drawn.values[key] == (None if value is None else pytest.approx(value, abs=1e-9)), key
        else:
            assert drawn.values[key] == value, key


def test_no_row_and_rows_out_of_range(matches):
    assert set(scores_from_matches(matches, []).values.values()) == {None}
    with pytest.raises(IndexError):
        scores_from_matches(matches, [25])


def test_an_alpha_of_minus_ten_matters_only_where_its_frame_is_taken():
    truth = objects(("Car", {}))
    matches = match_frames(
        [truth, truth], [objects(("Car", {}), scores=[0.9]), objects(("Car", {"alpha": -10}), scores=[0.9])], CLASSES
    )
    assert scores_from_matches(matches, [0]).values["strict/aos/Car/R11/easy"] == pytest.approx(100 / 11)
    assert scores_from_matches(matches, [0, 1]).values["strict/aos/Car/R11/easy"] is None


def test_a_class_is_evaluated_only_where_a_frame_with_it_is_taken(a_street):
    truth = objects(("Car", {}))
    matches = match_frames([truth, truth], [objects(("Car", {}), scores=[0.9]), objects(scores=[])], CLASSES)
    assert scores_from_matches(matches, [1]).values["strict/3d/Car/R40/easy"] is None
    assert scores_from_matches(matches, [0, 1]).values["strict/3d/Car/R40/easy"] is not None


def test_every_score_can_be_estimated_on_its_own(matches):
    scores = scores_from_matches(matches)
    whole = np.ones(25, dtype=np.int64)
    assert scores.main == MAIN and scores.headline == scores.values[MAIN]
    assert set(scores.values) == {str(key) for key in score_keys(CLASSES)}
    for key, value in scores.values.items():
        assert matches.estimator(key)(whole) == value, key


def test_an_unknown_score_names_the_nearest(matches):
    with pytest.raises(InputError, match="unknown score 'strict/3d/Car/R41/moderate'; did you mean 'strict/3d/Car/R4"):
        matches.estimator("strict/3d/Car/R41/moderate")
    with pytest.raises(InputError, match="classes are Car, Pedestrian, Cyclist"):
        matches.estimator("???")


def test_saved_matches_read_back(matches, tmp_path):
    matches.save(tmp_path / "matches.npz")
    again = FrameMatches.load(tmp_path / "matches.npz")
    for field in dataclasses.fields(FrameMatches):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(matches, field.name), err_msg=field.name)
    assert scores_from_matches(again) == scores_from_matches(matches)


def test_matches_of_no_frame_read_back(tmp_path):
    match_frames([], [], CLASSES).save(tmp_path / "matches.npz")
    assert FrameMatches.load(tmp_path / "matches.npz").frame_ids == ()


def test_frames_keep_their_names(a_street):
    truths, found = a_street
    names = [f"{i * 7:06d}" for i in range(25)]
    assert match_frames(truths, found, CLASSES, names).frame_ids == tuple(names)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("truths", lambda array: array[1:]),
        ("seen", lambda array: array[:, :1]),
        ("detection_frame", lambda array: array + 25),
        ("detection_score", lambda array: array[1:]),
        ("step_detection", lambda array: array - 1),
        ("step_hits", lambda array: array[1:]),
        ("step_offsets", lambda array: array[::-1]),
        ("step_offsets", lambda array: array.astype(float)),
        ("hit_offsets", lambda array: array[:-1]),
        ("step_similarity", lambda array: array[1:]),
        ("orientation_unknown", lambda array: array[1:]),
        ("truths", lambda array: -1 - array),
        ("detection_score", lambda array: array * np.nan),
        ("detection_score", lambda array: array.astype(str)),
        ("step_similarity", lambda array: array + np.inf),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(matches, tmp_path, name, spoil):
    dataclasses.replace(matches, **{name: spoil(getattr(matches, name))}).save(tmp_path / "matches.npz")
    with pytest.raises(
        InputError, match="(do not fit together|wrong type or number of dimensions).*; run `lidistill evaluate`"
    ):
        FrameMatches.load(tmp_path / "matches.npz")


def test_damaged_files_are_refused(matches, tmp_path):
    path = tmp_path / "matches.npz"
    with pytest.raises(InputError, match="missing"):
        FrameMatches.load(path)
    matches.save(path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"not an archive" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable"):
            FrameMatches.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="not a readable"):
        FrameMatches.load(path)
    np.savez(path, format=np.array(1), protocol=np.array("kitti"), truths=np.zeros(3))
    with pytest.raises(InputError, match="holds no array"):
        FrameMatches.load(path)
    matches.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "frame_ids": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="frame_ids has the wrong type"):
        FrameMatches.load(path)
    np.savez(path, **{**arrays, "classes": np.array(["Car"] * 3)})
    with pytest.raises(InputError, match="a frame or a class is listed twice"):
        FrameMatches.load(path)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"format": None}, "has no format number or no protocol, so an earlier version"),
        ({"format": None, "protocol": None}, "has no format number or no protocol"),
        ({"format": np.array(7)}, "has format 7, but this version reads format 1"),
        ({"format": np.array("one")}, "format has the wrong type"),
        ({"protocol": np.array("centres")}, "written by the protocol 'centres', not kitti"),
    ],
)
def test_a_file_that_something_else_wrote_is_named_with_the_remedy(matches, tmp_path, label, said):
    path = tmp_path / "matches.npz"
    matches.save(path)
    with np.load(path) as file:
        arrays = {**file, **label}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=f"matches.npz: {said}.*; run `lidistill evaluate` on its folder again"):
        FrameMatches.load(path)


@pytest.mark.parametrize("pairs_at_once", [1, 7, 100])
def test_how_many_pairs_are_looked_at_together_changes_nothing(a_street, matches, monkeypatch, pairs_at_once):
    monkeypatch.setattr("lidistill.datasets.kitti.metric._PAIRS_AT_ONCE", pairs_at_once)
    again = match_frames(*a_street, CLASSES)
    for field in dataclasses.fields(FrameMatches):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(matches, field.name), err_msg=field.name)
