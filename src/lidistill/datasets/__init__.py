"""One folder per dataset: its files, its frames in LiDAR axes, and its official metric."""

from __future__ import annotations

from lidistill.data.source import DataSettings, parse_data
from lidistill.datasets.joined import JoinedData
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.protocol import KittiProtocol
from lidistill.datasets.kitti.tracking import KittiTrackingData
from lidistill.datasets.simulated.frames import SimulatedData, SimulatedKittiData
from lidistill.evaluation.protocol import Protocol
from lidistill.types import DatasetSpec, unknown_name

DATASETS: dict[str, type[DataSettings]] = {
    "kitti": KittiData,
    "kitti-tracking": KittiTrackingData,
    "simulated": SimulatedData,
    "simulated-kitti": SimulatedKittiData,
    "joined": JoinedData,
}

JoinedData.table = DATASETS

PROTOCOLS: dict[str, Protocol] = {"kitti": KittiProtocol()}


def parse_source(text: str) -> DataSettings:
    """Settings from the command line: NAME or NAME:PLACE, such as "kitti:/data/kitti" or "simulated"; InputError if
    the name is unknown or the dataset does not accept the place.
    """
    return parse_data(text, DATASETS)


def protocol_of(spec: DatasetSpec) -> Protocol:
    """The protocol that scores a dataset; InputError if PROTOCOLS has none of that name."""
    if spec.protocol not in PROTOCOLS:
        raise unknown_name("protocol", spec.protocol, PROTOCOLS)
    return PROTOCOLS[spec.protocol]
