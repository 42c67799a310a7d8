"""Datasets as frames in LiDAR axes, and what training does to them."""

from __future__ import annotations

from lidistill.data.kitti import KittiData
from lidistill.data.loading import DataSettings
from lidistill.data.simulated import SimulatedData
from lidistill.types import unknown_name

DATASETS: dict[str, type[DataSettings]] = {"kitti": KittiData, "simulated": SimulatedData}


def parse_source(text: str) -> DataSettings:
    """Settings from the command line: NAME or NAME:PLACE, such as "kitti:/data/kitti" or "simulated"; InputError where the name is unknown."""
    name, _, place = text.partition(":")
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name].at(place)
