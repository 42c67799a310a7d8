"""Names of datasets on the command line."""

import pytest

from lidistill.data.source import DataSettings
from lidistill.datasets import DATASETS, parse_source
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.types import InputError


@pytest.mark.parametrize("place", ["/data/kitti", "relative/kitti", "C:/kitti"])
def test_kitti_takes_its_folder_after_the_colon(place):
    assert parse_source(f"kitti:{place}") == KittiData(root=place)


@pytest.mark.parametrize("text", ["kitti", "kitti:"])
def test_kitti_without_a_folder_says_what_to_write(text):
    with pytest.raises(InputError, match="kitti needs the folder of the data; write kitti:/path"):
        parse_source(text)


def test_simulated_streets_need_no_folder_and_take_one():
    assert parse_source("simulated") == SimulatedData()
    assert parse_source("simulated:/data/streets") == SimulatedData(root="/data/streets")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="unknown dataset 'kity'; did you mean 'kitti'"):
        parse_source("kity:/data")


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_names_itself_and_describes_its_frames(name, tmp_path):
    place = f"simulated+simulated:{tmp_path}" if name == "joined" else str(tmp_path)
    data = parse_source(f"{name}:{place}")
    assert isinstance(data, DataSettings)
    assert data.name == name
    spec = data.spec
    assert spec.classes
    assert all(low < high for low, high in zip(spec.point_range[:3], spec.point_range[3:], strict=True))
