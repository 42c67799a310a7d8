import numpy as np
import pytest
import torch
from torch import nn

from lidistill.evaluation.predict import Predictions, predict
from lidistill.types import Boxes, Frame, InputError


class Settings:
    classes = ("Car", "Pedestrian")


class Finder(nn.Module):
    """Finds one box at the first point of each frame; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.config = Settings()
        self.layer = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1)
        self.sizes, self.modes, self.gradients = [], [], []

    def forward(self, batch):
        self.sizes.append(batch.size)
        self.modes.append((self.training, self.norm.training))
        self.gradients.append(self.layer(torch.ones(1, 1)).requires_grad)
        return batch

    def decode(self, batch):
        return [
            Boxes(
                geometry=torch.cat([batch.points[batch.batch_index == row][0, :3], torch.ones(4)])[None],
                labels=torch.ones(1, dtype=torch.int64),
                scores=torch.full((1,), 0.5),
            )
            for row in range(batch.size)
        ]


def frames(count):
    return [Frame(id=f"{i:06d}", points=torch.full((3, 4), float(i))) for i in range(count)]


def test_every_frame_gets_its_own_boxes_in_order():
    detector = Finder()
    found = predict(detector, frames(7), batch_size=3)
    assert detector.sizes == [3, 3, 1]
    assert found.frame_ids == tuple(f"{i:06d}" for i in range(7))
    assert [boxes.geometry[0, 0].item() for boxes in found.boxes] == list(range(7))
    assert found.classes == ("Car", "Pedestrian")


def test_the_batch_size_changes_nothing():
    one, all_at_once = (predict(Finder(), frames(5), batch_size=size) for size in (1, 5))
    for a, b in zip(one.boxes, all_at_once.boxes, strict=True):
        assert torch.equal(a.geometry, b.geometry)


def test_prediction_runs_in_evaluation_mode_without_gradients_and_restores_the_mode_of_each_part():
    detector = Finder().train()
    detector.norm.eval()
    predict(detector, frames(2), batch_size=1)
    assert detector.modes == [(False, False)] * 2
    assert detector.gradients == [False] * 2
    assert detector.training and detector.layer.training and not detector.norm.training


def test_the_mode_is_restored_after_a_failure():
    def broken():
        yield from frames(1)
        raise RuntimeError("disk gone")

    detector = Finder().train()
    with pytest.raises(RuntimeError, match="disk gone"):
        predict(detector, broken(), batch_size=1)
    assert detector.training


def test_frames_are_read_once_and_progress_is_told():
    done = []
    predict(Finder(), (frame for frame in frames(5)), batch_size=2, progress=done.append)
    assert done == [2, 4, 5]


def test_no_frame_gives_no_prediction():
    found = predict(Finder(), [], classes=["Van"])
    assert found == Predictions((), (), ("Van",))


def boxes(count, label=0, velocity=False):
    return Boxes(
        geometry=torch.arange(count * 7, dtype=torch.float32).reshape(count, 7),
        labels=torch.full((count,), label),
        scores=torch.linspace(0, 1, count),
        velocity=torch.ones(count, 2) if velocity else None,
    )


@pytest.mark.parametrize("velocity", [False, True])
def test_saved_predictions_read_back(tmp_path, velocity):
    found = Predictions(
        ("a", "b", "c"),
        (boxes(2, 1, velocity), boxes(0, 0, velocity), boxes(3, 0, velocity)),
        ("Car", "Cyclist"),
        dataset="yard",
        dataset_version="edition 2",
    )
    found.save(tmp_path / "predictions.npz")
    again = Predictions.load(tmp_path / "predictions.npz")
    assert (again.frame_ids, again.classes) == (found.frame_ids, found.classes)
    assert (again.dataset, again.dataset_version) == ("yard", "edition 2")
    for was, now in zip(found.boxes, again.boxes, strict=True):
        for name in ("geometry", "labels", "scores", *(["velocity"] if velocity else [])):
            assert torch.equal(getattr(now, name), getattr(was, name))
            assert getattr(now, name).dtype == getattr(was, name).dtype
        assert (now.velocity is not None) == velocity


def test_predictions_of_no_frame_read_back(tmp_path):
    Predictions((), (), ("Car",)).save(tmp_path / "predictions.npz")
    assert Predictions.load(tmp_path / "predictions.npz") == Predictions((), (), ("Car",))


def test_predictions_of_an_earlier_release_name_no_version_of_the_dataset(tmp_path):
    path = tmp_path / "predictions.npz"
    Predictions(("a",), (boxes(1),), ("Car",), "yard", "edition 2").save(path)
    with np.load(path) as file:
        arrays = dict(file)
    del arrays["dataset_version"]
    np.savez(path, **arrays)
    again = Predictions.load(path)
    assert (again.dataset, again.dataset_version) == ("yard", "")


def test_predictions_that_do_not_fit_together_are_refused():
    with pytest.raises(InputError, match="name 2 frames but have boxes of 1"):
        Predictions(("a", "b"), (boxes(1),), ("Car",))
    with pytest.raises(InputError, match="name frame 'b' twice"):
        Predictions(("a", "b", "b"), (boxes(1),) * 3, ("Car",))
    with pytest.raises(InputError, match="frame 'a' have no scores"):
        Predictions(("a",), (Boxes.empty(),), ("Car",))
    for label in (1, -1):
        with pytest.raises(InputError, match=r"frame 'a' have a label outside 0\.\.0"):
            Predictions(("a",), (boxes(1, label),), ("Car",))


def test_bad_requests_are_named():
    with pytest.raises(InputError, match="batch_size is 0"):
        predict(Finder(), frames(1), batch_size=0)
    detector = Finder()
    detector.decode = lambda output: []
    with pytest.raises(InputError, match="decoded 0 frames of a batch of 2"):
        predict(detector, frames(2))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("counts", np.array([1, 1]), "geometry has shape"),
        ("counts", np.array([4, -1]), "geometry has shape"),
        ("counts", np.array([1.0, 2.0]), "counts has the wrong type"),
        ("counts", np.array(3), "counts has the wrong type or number of dimensions"),
        ("frame_ids", np.array(["a"]), "frame_ids has shape"),
        ("labels", np.zeros((3, 1)), "labels has the wrong type or number of dimensions"),
        ("labels", np.zeros(2, dtype=int), "labels has shape"),
        ("labels", np.array(["0", "0", "0"]), "labels has the wrong type"),
        ("geometry", np.zeros((3, 7), dtype=complex), "geometry has the wrong type"),
        ("geometry", np.full((3, 7), -1.0), "a box has the size -1 m"),
        ("classes", np.array(["Car", "Van", "Car"]), "name a class twice"),
        ("velocity", np.zeros((3, 3)), "velocity has shape"),
        ("labels", np.full(3, 9), "label outside"),
        ("dataset_version", np.array(3), "dataset_version has the wrong type"),
    ],
)
def test_damaged_predictions_are_refused(tmp_path, name, value, said):
    path = tmp_path / "predictions.npz"
    Predictions(("a", "b"), (boxes(1), boxes(2)), ("Car",)).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, name: value})
    with pytest.raises(InputError, match=said):
        Predictions.load(path)
    with pytest.raises(InputError, match="missing; predict again"):
        Predictions.load(tmp_path / "absent.npz")
