"""The object database: what it holds, and how it is cached."""

import errno
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill.data.object_database import build_database, database_path, load_database, object_database, save_database
from lidistill.types import Boxes, Frame, InputError
from tests.data.conftest import SPEC, MadeUpFrames, made_up_frame
from tests.reference.augment import inside


def assert_same(first, second):
    assert first.classes == second.classes
    for name in ("boxes", "velocity", "labels", "difficulty", "counts", "points"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_every_object_has_the_points_of_its_box(made_up):
    database = build_database(made_up)
    boxes = np.concatenate([frame.boxes.geometry.numpy() for frame in made_up.frames])
    np.testing.assert_array_equal(database.boxes, boxes)
    row = 0
    for frame in made_up.frames:
        for box in frame.boxes.geometry.numpy():
            expected = np.array([point for point in frame.points.numpy() if inside(point, box)])
            np.testing.assert_allclose(database.points_of(row), expected, atol=1e-5)
            assert database.counts[row] == len(expected)
            row += 1
    assert row == len(database)


def test_an_object_keeps_its_velocity_and_stands_where_the_dataset_has_none(made_up, tmp_path):
    frame = made_up.frames[0]
    velocity = torch.arange(10.0).reshape(5, 2)
    velocity[3] = torch.nan  # of an object whose velocity nobody knows
    moving = replace(frame, boxes=replace(frame.boxes, velocity=velocity))
    database = object_database(MadeUpFrames([moving, made_up.frames[1]]), tmp_path)
    assert_same(object_database(MadeUpFrames([moving, made_up.frames[1]]), tmp_path), database)
    np.testing.assert_array_equal(database.velocity, np.concatenate([velocity.numpy(), np.zeros((5, 2))]))


def test_points_of_an_object_are_a_copy(made_up):
    database = build_database(made_up)
    before = database.points.copy()
    database.points_of(2)[:] = 0
    np.testing.assert_array_equal(database.points, before)


def test_objects_without_points_are_left_out():
    frame = made_up_frame("000000", 0)
    bare = replace(frame, points=frame.points[:200])  # the ground
    assert len(build_database(MadeUpFrames([bare]))) == 0
    assert len(build_database(MadeUpFrames([bare, frame]))) == 5


def test_frames_without_boxes_and_unlabelled_frames_give_nothing():
    points = torch.rand(10, 4)
    database = build_database(
        MadeUpFrames([Frame("a", points), Frame("b", points, Boxes.empty()), Frame("c", points[:0], Boxes.empty())])
    )
    assert len(database) == 0
    assert database.points.shape == (0, 4)
    assert database.rows(0, 1, True).shape == (0,)


def test_rows_are_chosen_by_class_points_and_difficulty(made_up):
    database = build_database(made_up)
    rated = replace(database, difficulty=np.where(np.arange(len(database)) % 2, 0, -1))
    cars = rated.rows(0, 1, rated_only=False)
    assert (rated.labels[cars] == 0).all()
    assert len(cars) == (rated.labels == 0).sum()
    odd = rated.rows(0, 1, rated_only=True)
    assert set(odd) == {row for row in cars if row % 2}
    fewest = int(np.sort(rated.counts[cars])[-1])
    assert (rated.counts[rated.rows(0, fewest, rated_only=False)] >= fewest).all()
    assert rated.rows(0, fewest + 1, rated_only=False).shape == (0,)


def test_the_cached_database_is_the_built_one(made_up, tmp_path):
    built = object_database(made_up, tmp_path)
    files = list(tmp_path.rglob("*.*"))
    assert files == [database_path(made_up, tmp_path)]
    made_up.__class__.__getitem__, kept = None, made_up.__class__.__getitem__  # reading a frame again would fail
    try:
        assert_same(object_database(made_up, tmp_path), built)
    finally:
        made_up.__class__.__getitem__ = kept


def test_the_cache_follows_the_content(made_up, tmp_path, monkeypatch):
    first = database_path(made_up, tmp_path)
    fewer = MadeUpFrames(made_up.frames[:-1])
    assert database_path(fewer, tmp_path) != first
    monkeypatch.setattr("lidistill.data.object_database.CODE_VERSION", 99)
    assert database_path(made_up, tmp_path) != first


def test_the_cache_folder_comes_from_the_environment(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path / "here"))
    assert (tmp_path / "here") in database_path(made_up).parents
    monkeypatch.delenv("LIDISTILL_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert (tmp_path / "home" / ".cache" / "lidistill") in database_path(made_up).parents


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_pickle_in_the_cache_is_refused_and_never_run(made_up, tmp_path):
    mark = tmp_path / "ran"
    path = database_path(made_up, tmp_path)
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(InputError, match=r"\.npz: not an object database of plain arrays; delete the file"):
        object_database(made_up, tmp_path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # the trap works where somebody unpickles it


def test_an_archive_with_a_pickled_array_is_refused_and_never_run(made_up, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "database.npz"
    database = build_database(made_up)
    columns = {name: getattr(database, name) for name in ("labels", "difficulty", "counts", "points")}
    np.savez(path, classes=np.array(SPEC.classes), boxes=np.array([Trap(mark)], dtype=object), **columns)
    with pytest.raises(InputError, match="not an object database"):
        load_database(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
def test_a_damaged_cache_is_refused_with_a_sentence(tmp_path, content):
    path = tmp_path / "database.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"database\.npz: not an object database"):
        load_database(path)


def test_a_plain_array_is_no_database(tmp_path):
    path = tmp_path / "database.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="not an object database"):
        load_database(path)


@pytest.mark.parametrize("name", ["boxes", "velocity", "labels", "counts", "points"])
def test_arrays_that_do_not_belong_together_are_refused(made_up, tmp_path, name):
    path = tmp_path / "database.npz"
    database = build_database(made_up)
    save_database(path, replace(database, **{name: getattr(database, name)[:-1]}))
    with pytest.raises(InputError, match="not an object database"):
        load_database(path)


@pytest.mark.parametrize("where", ["numpy.savez", "os.replace"])
def test_a_full_disk_leaves_no_partial_file_and_training_goes_on(made_up, tmp_path, monkeypatch, where):
    def full(target, *args, **arrays):
        if hasattr(target, "write"):
            target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, full)
    with pytest.raises(InputError, match=r"database\.npz: could not be written \(No space left on device\)"):
        save_database(tmp_path / "database.npz", build_database(made_up))
    with pytest.warns(UserWarning, match="continues without the cached object database"):
        assert len(object_database(made_up, tmp_path)) == 30
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_database_under_another_name_is_refused(made_up, tmp_path):
    """The name stands for the frames, so a file that was put under it holds the objects of others."""
    others = MadeUpFrames(made_up.frames[:-1])
    object_database(others, tmp_path)
    database_path(others, tmp_path).rename(database_path(made_up, tmp_path))
    with pytest.raises(
        InputError, match=r"not an object database of these frames; it was saved as tiny-\w+\.npz; delete the file"
    ):
        object_database(made_up, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": lambda labels: labels + 9},
        {"labels": lambda labels: labels - 9},
        {"labels": lambda labels: labels.astype(str)},
        {"boxes": lambda boxes: boxes * np.nan},
        {"boxes": lambda boxes: -boxes},
        {"points": lambda points: points * np.inf},
        {"points": lambda points: points.astype(complex)},
        {"counts": lambda counts: counts - counts[0]},
        {"classes": lambda classes: ("Car",) * 3},
    ],
    ids=[
        "labels above",
        "labels below",
        "labels of text",
        "boxes of NaN",
        "boxes below zero",
        "infinite points",
        "complex points",
        "no points",
        "a class thrice",
    ],
)
def test_a_database_of_what_no_object_has_is_refused(made_up, tmp_path, change):
    database = build_database(made_up)
    ((name, changed),) = change.items()
    save_database(tmp_path / "database.npz", replace(database, **{name: changed(getattr(database, name))}))
    with pytest.raises(InputError, match="not an object database"):
        load_database(tmp_path / "database.npz")
