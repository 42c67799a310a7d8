"""One folder a dataset: its files, its frames in LiDAR axes, and its official metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lidistill.data.source import DataSettings
from lidistill.datasets.kitti import protocol as kitti_protocol
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.scores import Scores
from lidistill.types import Frame, unknown_name

Protocol = Callable[[Predictions, Iterable[Frame]], tuple[Scores, FrameMatches]]

DATASETS: dict[str, type[DataSettings]] = {"kitti": KittiData, "simulated": SimulatedData}

PROTOCOLS: dict[str, Protocol] = {"kitti": kitti_protocol.evaluate}


def parse_source(text: str) -> DataSettings:
    """Settings from the command line: NAME or NAME:PLACE, such as "kitti:/data/kitti" or "simulated"; InputError where
    the name is unknown.
    """
    name, _, place = text.partition(":")
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name].at(place)
