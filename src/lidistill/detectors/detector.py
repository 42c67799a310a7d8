"""The base classes of all detectors: settings, and a network with four methods (prepare, forward, loss, decode)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lidistill.detector_inputs import Inputs
from lidistill.detectors.width import WidthRule
from lidistill.ops.layer_graph import Layer
from lidistill.outputs import DetectorOutput, TapSpec
from lidistill.settings import Names, Range, Settings
from lidistill.types import Batch, Boxes, Losses

NORM_EPS = 1e-3  # of the BatchNorms in the published encoders, trunks and necks
NORM_MOMENTUM = 0.01


@dataclass(frozen=True)
class DetectorConfig(Settings, ABC):
    """Everything needed to build a detector. Raises InputError if the settings do not fit together."""

    place: ClassVar[str] = "detector"
    name: ClassVar[str]
    classes: Names
    point_features: Names = ("intensity",)  # columns after x, y, z, as the dataset names them

    @property
    @abstractmethod
    def point_range(self) -> Range:
        """Detection range: x_min y_min z_min x_max y_max z_max in metres."""

    @abstractmethod
    def build(self) -> Detector:
        """Return a detector with random weights, drawn from torch's global generator."""

    @abstractmethod
    def thinner(self, rule: WidthRule) -> DetectorConfig:
        """The same detector with fewer channels."""


class Detector(nn.Module, ABC):
    """Points -> taps (intermediate features) and raw head outputs, from which the loss and the boxes are computed."""

    config: DetectorConfig
    tap_specs: Mapping[str, TapSpec]

    @abstractmethod
    def prepare(self, batch: Batch) -> Inputs:
        """Make the network's inputs from the points, for example voxels. Caps depend on the mode (train or eval)."""

    @abstractmethod
    def shares_input_with(self, other: Detector) -> bool:
        """Whether this detector can use the inputs that `other` prepares, so that they are made once for both."""

    @abstractmethod
    def forward(self, batch: Batch, inputs: Inputs | None = None) -> DetectorOutput:
        """Run the network on `inputs`, or on `prepare(batch)` if `inputs` is None.

        With the same `inputs`, a row is the same pillar, voxel or point in two detectors.
        """

    @abstractmethod
    def loss(self, output: DetectorOutput, batch: Batch, ranked_by: DetectorOutput | None = None) -> Losses:
        """Return the weighted terms of the detection loss. Nothing is stored or changed, so a second call returns the
        same values.

        With `ranked_by`, the output of another network on the same anchors or cells assigns the labels: positive are
        those where that network's own loss would be lowest (LAD, WACV 2022). Raises InputError if the two outputs do
        not have the same anchors or cells.
        """

    @abstractmethod
    def decode(self, output: DetectorOutput) -> list[Boxes]:
        """Return the detections of each frame with their scores, best first."""

    def for_inference(self) -> Detector:
        """Return a frozen copy in evaluation mode, which may be faster and cannot be trained.

        Its outputs, taps included, equal this detector's in evaluation mode to rounding.
        """
        return copy.deepcopy(self).eval().requires_grad_(False)

    def layer_graph(self) -> tuple[Layer, ...]:
        """Return all layers with weights in the order of the forward pass, or () if it is not known.

        With it, a thinner student can be initialised from this detector's channels.
        """
        return ()


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, trainable and frozen; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
