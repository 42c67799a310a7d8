"""What is asked of every dataset: the frames keep the promises of the spec, whoever reads them, and however often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from lidistill.data.object_database import build_database
from lidistill.data.source import DataSettings
from lidistill.data.sweeps import SweptFrames
from lidistill.datasets import DATASETS
from lidistill.datasets.joined import JoinedData
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.tracking import KittiTrackingData
from lidistill.datasets.simulated.folder import write_folder
from lidistill.datasets.simulated.frames import SimulatedData, SimulatedKittiData
from lidistill.simulate import Motion, SimulatorSettings
from lidistill.types import InputError, collate
from tests.datasets.kitti.tracking_folder import write_sequence

COARSE = SimulatorSettings(sensor="kitti-lite", azimuth_step_deg=1.0)


def kitti(folder: Path) -> DataSettings:
    write_folder(folder, 4, COARSE, workers=1, val_share=0.5, progress=False)
    return KittiData(root=str(folder))


def kitti_tracking(folder: Path, sweeps: int = 1) -> DataSettings:
    write_folder(folder / "objects", 4, COARSE, workers=1, val_share=0.5, progress=False)
    for sequence, ids in (("0000", ("000000", "000001")), ("0001", ("000002", "000003"))):
        write_sequence(folder, sequence, folder / "objects" / "training", ids)
    return KittiTrackingData(root=str(folder), train_sequences=("0000",), val_sequences=("0001",), sweeps=sweeps)


def simulated(folder: Path) -> DataSettings:
    return SimulatedData(root=str(folder), train_frames=2, val_frames=2, workers=1, simulator=COARSE)


def simulated_sweeps(folder: Path) -> DataSettings:
    moving = replace(COARSE, motion=Motion(num_frames=2))
    return SimulatedData(root=str(folder), train_frames=2, val_frames=2, workers=1, simulator=moving, sweeps=2)


def simulated_kitti(folder: Path) -> DataSettings:
    return SimulatedKittiData(root=str(folder), train_frames=2, val_frames=2, workers=1, simulator=COARSE)


def joined(folder: Path) -> DataSettings:
    kitti(folder / "a")
    kitti(folder / "b")
    return JoinedData((f"kitti:{folder / 'a'}", f"kitti:{folder / 'b'}"), repeats=(1, 2))


MADE: dict[str, Callable[[Path], DataSettings]] = {
    "kitti": kitti,
    "kitti-tracking": kitti_tracking,
    "kitti-tracking with sweeps": partial(kitti_tracking, sweeps=2),
    "simulated": simulated,
    "simulated-kitti": simulated_kitti,
    "joined": joined,
    "simulated with sweeps": simulated_sweeps,
}


@pytest.fixture(scope="module", params=MADE)
def data(request, tmp_path_factory) -> DataSettings:
    return MADE[request.param](tmp_path_factory.mktemp("data"))


def test_every_dataset_of_the_table_is_tried():
    assert {name.split()[0] for name in MADE} == set(DATASETS)


def test_splits_open_with_the_spec_of_the_settings(data):
    for split in ("train", "val"):
        source = data.open(split)
        # only an opened folder knows whether the simulator wrote it
        promised = replace(data.spec, simulated=source.spec.simulated, version=source.spec.version)
        assert source.spec == promised and len(source) == len(source.ids) > 0
        assert len(set(source.ids)) == len(source.ids)


def test_frames_keep_the_promises_of_the_spec(data):
    found = 0
    for row, frame in enumerate(data.open("train")):
        assert frame.id == data.open("train").ids[row]
        assert frame.points.dtype == torch.float32 and frame.points.shape[1] == 3 + len(data.spec.point_features)
        assert frame.points.isfinite().all()
        boxes = frame.boxes
        assert boxes.geometry.dtype == torch.float32 and boxes.geometry.shape == (len(boxes), 7)
        assert boxes.labels.dtype == torch.int64 and boxes.labels.shape == (len(boxes),)
        assert boxes.geometry.isfinite().all() and (boxes.geometry[:, 3:6] > 0).all()
        assert ((boxes.labels >= 0) & (boxes.labels < len(data.spec.classes))).all()
        for column, width in ((boxes.velocity, (2,)), (boxes.difficulty, ())):
            assert column is None or column.shape == (len(boxes), *width)
        found += len(boxes)
    assert found > 0


def test_a_frame_is_the_same_each_time_and_shared_with_nobody(data):
    source = data.open("train")
    first = source[0]
    points, geometry = first.points.clone(), first.boxes.geometry.clone()
    first.points.fill_(7.0)
    first.boxes.geometry.fill_(7.0)
    for again in (source[0], data.open("train")[0]):
        assert torch.equal(again.points, points) and torch.equal(again.boxes.geometry, geometry)


def test_the_fingerprint_is_of_the_frames(data):
    source = data.open("train")
    assert source.fingerprint() == data.open("train").fingerprint()
    assert source.fingerprint() != data.open("val").fingerprint()
    other = data.with_classes(tuple(reversed(data.spec.classes)))
    assert source.fingerprint() != other.open("train").fingerprint()


def test_other_classes_are_the_same_frames_with_their_own_labels(data):
    last = data.spec.classes[-1]
    for whole, part in zip(data.open("train"), data.with_classes((last,)).open("train"), strict=True):
        assert torch.equal(whole.points, part.points)
        chosen = whole.boxes.labels == len(data.spec.classes) - 1
        assert torch.equal(part.boxes.geometry, whole.boxes.geometry[chosen])
        assert (part.boxes.labels == 0).all()


def test_classes_that_the_dataset_does_not_know_are_refused(data):
    for classes in (("Unicorn",), ()):
        with pytest.raises(InputError, match="classes"):
            data.with_classes(classes)


def test_frames_can_be_joined_and_their_objects_cut_out(data):
    source = data.open("train")
    assert collate(list(source)).size == len(source)
    assert build_database(source).is_sound


def test_a_place_or_a_sentence_comes_from_the_command_line(data):
    place = "simulated+simulated" if isinstance(data, JoinedData) else "somewhere"
    assert isinstance(type(data).at(place), type(data))


def test_sequences_are_in_the_order_of_time_or_not_there(data):
    frames = list(data.open("train"))
    if frames[0].sequence is None:
        assert all(frame.sequence is None for frame in frames)
    else:
        source = data.open("train")
        joined = SweptFrames(source.source if isinstance(source, SweptFrames) else source, 3)
        assert all(len(frame.points) > 0 for frame in joined)
