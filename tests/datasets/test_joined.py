"""Several datasets as one to train on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lidistill import jobs
from lidistill.data.source import DataSettings
from lidistill.datasets import DATASETS, parse_source
from lidistill.datasets.joined import JoinedData, JoinedFrames
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.simulated.folder import write_folder
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.experiment import Experiment
from lidistill.simulate import SIMULATOR_VERSION, Motion, SimulatorSettings
from lidistill.types import InputError

COARSE = SimulatorSettings(sensor="kitti-lite", azimuth_step_deg=2.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Simulated frames, and frames that pass for recorded ones: three to train on, and one to score on, each."""
    made = tmp_path_factory.mktemp("joined")
    for seed, name in enumerate(("streets", "recorded")):
        write_folder(made / name, 4, COARSE, seed=seed, workers=1, val_share=0.25, progress=False)
    (made / "recorded" / "simulated.json").unlink()
    return made


def joined(folders, **settings) -> JoinedData:
    return JoinedData((f"kitti:{folders / 'streets'}", f"kitti:{folders / 'recorded'}"), **settings)


def test_training_frames_are_those_of_all_parts_as_often_as_asked(folders):
    train = joined(folders, repeats=(1, 2)).open("train")
    parts = [KittiData(root=str(folders / name)).open("train") for name in ("streets", "recorded", "recorded")]
    assert len(train) == 9
    assert len(set(train.ids)) == 9
    for row, expected in enumerate(frame for part in parts for frame in part):
        assert torch.equal(train[row].points, expected.points)
        assert torch.equal(train[row].boxes.geometry, expected.boxes.geometry)
        assert train[row].id == train.ids[row] != expected.id
    assert torch.equal(train[-1].points, train[8].points)
    with pytest.raises(IndexError):
        train[9]


def test_the_last_part_is_the_judge(folders):
    data = joined(folders)
    val = data.open("val")
    assert val.ids == KittiData(root=str(folders / "recorded")).open("val").ids
    assert (val.spec.simulated, val.spec.version) == (False, "")


def test_training_frames_of_which_some_are_simulated_say_so(folders):
    spec = joined(folders).open("train").spec
    assert (spec.simulated, spec.version) == (True, f"simulator {SIMULATOR_VERSION}")


def test_the_fingerprint_changes_with_every_part_and_its_repeats(folders):
    prints = {joined(folders, repeats=repeats).open("train").fingerprint() for repeats in ((1, 1), (1, 2), (2, 1))}
    turned = JoinedData((f"kitti:{folders / 'recorded'}", f"kitti:{folders / 'streets'}"))
    assert len(prints | {turned.open("train").fingerprint()}) == 4


def test_earlier_scans_are_those_of_the_same_part(tmp_path):
    moving = replace(COARSE, motion=Motion(num_frames=2))
    streets = SimulatedData(root=str(tmp_path), train_frames=4, val_frames=2, workers=1, simulator=moving).open("train")
    twice = JoinedFrames([streets, streets], (1, 1))
    assert [len(list(twice.earlier(row, 3))) for row in range(8)] == [0, 1, 0, 1] * 2


def test_classes_reach_every_part(folders):
    data = joined(folders).with_classes(("Cyclist", "Car"))
    assert data.spec.classes == data.open("train").spec.classes == ("Cyclist", "Car")


def test_an_experiment_keeps_the_parts(folders):
    experiment = jobs.supervised(
        "pointpillars", data=f"joined:kitti:{folders / 'streets'}+kitti:{folders / 'recorded'}"
    )
    assert isinstance(experiment.data, JoinedData)
    again = Experiment.from_dict(experiment.to_dict(), "test")
    assert again == experiment
    assert again.overridden(["data.repeats=[1,20]"]).data.repeats == (1, 20)


class OtherPoints(KittiData):
    """Frames with one more point feature."""

    name = "other"

    @property
    def spec(self):
        return replace(super().spec, point_features=("intensity", "ring"))


@pytest.mark.parametrize("text", ["joined", "joined:", "joined:simulated", "joined:simulated+", "joined:+simulated"])
def test_fewer_than_two_datasets_are_refused(text):
    with pytest.raises(InputError, match="joined needs two or more datasets; write joined:simulated-kitti"):
        parse_source(text)


def test_repeats_must_be_one_for_each_part():
    with pytest.raises(InputError, match=r"data.repeats has 1 numbers for 2 datasets; give one for each"):
        JoinedData(("simulated", "simulated"), repeats=(3,))


def test_an_unknown_part_suggests_the_nearest():
    with pytest.raises(InputError, match="unknown dataset 'kity'; did you mean 'kitti'"):
        parse_source("joined:simulated+kity:/data")


def test_parts_that_disagree_are_refused(monkeypatch):
    table: dict[str, type[DataSettings]] = {**DATASETS, "other": OtherPoints}
    monkeypatch.setattr(JoinedData, "table", table)
    with pytest.raises(InputError, match=r"other:/x has point_features \('intensity', 'ring'\) and simulated has"):
        JoinedData(("simulated", "other:/x"))
