import numpy as np
import pytest
import torch

from lidistill.report.measures.samples import load_samples, save_samples
from lidistill.types import Boxes, Frame, InputError

RANGE = (0.0, -40.0, -3.0, 70.0, 40.0, 1.0)
CLASSES = ("Car", "Pedestrian")


def frame(name: str, points: int, boxes: int | None, features: int = 1) -> Frame:
    labels = None if boxes is None else Boxes(torch.rand(boxes, 7), torch.arange(boxes) % 2)
    return Frame(name, torch.rand(points, 3 + features), labels)


def test_frames_come_back_as_they_were(tmp_path):
    frames = [frame("000001", 5, 2), frame("000007", 0, 0), frame("b", 3, 1)]
    save_samples(tmp_path / "new" / "samples.npz", frames, CLASSES, RANGE)
    samples = load_samples(tmp_path / "new" / "samples.npz")
    assert samples.classes == CLASSES
    assert samples.point_range == RANGE
    assert [loaded.id for loaded in samples.frames] == ["000001", "000007", "b"]
    for loaded, saved in zip(samples.frames, frames, strict=True):
        assert torch.equal(loaded.points, saved.points)
        assert torch.equal(loaded.boxes.geometry, saved.boxes.geometry)
        assert torch.equal(loaded.boxes.labels, saved.boxes.labels)


def test_a_frame_without_labels_comes_back_with_no_boxes(tmp_path):
    save_samples(tmp_path / "s.npz", [frame("a", 2, None)], CLASSES, RANGE)
    assert len(load_samples(tmp_path / "s.npz").frames[0].boxes) == 0


def test_no_frames_is_a_valid_file(tmp_path):
    save_samples(tmp_path / "s.npz", [], CLASSES, RANGE)
    assert load_samples(tmp_path / "s.npz").frames == ()


def test_the_file_is_the_same_each_time(tmp_path):
    frames = [frame("a", 20, 2)]
    for name in ("one", "two"):
        save_samples(tmp_path / name, frames, CLASSES, RANGE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_frames_of_different_features_are_refused(tmp_path):
    with pytest.raises(InputError, match="different point features"):
        save_samples(tmp_path / "s.npz", [frame("a", 2, 1), frame("b", 2, 1, features=3)], CLASSES, RANGE)
    assert not (tmp_path / "s.npz").exists()


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.npz: missing"):
        load_samples(tmp_path / "gone.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, content in (
        ("array.npz", (tmp_path / "array.npy").read_bytes()),
        ("text.npz", b"no archive"),
        ("empty.npz", b""),
        ("cut.npz", b"PK\x03\x04 and no more"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_samples(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offsets", np.array([0, 9])),
        ("offsets", np.array([0, 3, 2])),
        ("truth_offsets", np.array([1, 2])),
        ("truth_geometry", np.zeros((2, 6))),
        ("truth_labels", np.zeros(3, dtype=int)),
        ("point_range", np.zeros(5)),
        ("points", np.zeros((4, 2))),
        ("points", np.array([object()] * 4)),
        ("points", None),
        ("ids", np.array(["a", "b"])),
        ("offsets", np.array("no number")),
        ("classes", np.array(["Car"] * 3)),
        ("truth_geometry", np.full((2, 7), -1.0)),
        ("points", np.zeros((4, 4), dtype=complex)),
    ],
)
def test_arrays_that_do_not_hold_together_are_refused(tmp_path, name, value):
    path = tmp_path / "s.npz"
    save_samples(path, [frame("a", 4, 2)], CLASSES, RANGE)
    with np.load(path) as file:
        arrays = dict(file)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"s\.npz"):
        load_samples(path)
