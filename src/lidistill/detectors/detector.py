"""What every detector is: settings that build it, and four verbs (prepare, forward, loss, decode)."""

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
    """Everything needed to build a detector; it proves its geometry when it is made."""

    place: ClassVar[str] = "detector"
    name: ClassVar[str]
    classes: Names
    point_features: Names = ("intensity",)  # columns after x, y, z, as the dataset names them

    @property
    @abstractmethod
    def point_range(self) -> Range:
        """x_min y_min z_min x_max y_max z_max in metres: where the detector looks."""

    @abstractmethod
    def build(self) -> Detector:
        """A freshly initialised detector (torch's global generator)."""

    @abstractmethod
    def thinner(self, rule: WidthRule) -> DetectorConfig:
        """The same detector with fewer channels."""


class Detector(nn.Module, ABC):
    """Points in, taps and raw heads out; the loss and the boxes are read off that output."""

    config: DetectorConfig
    tap_specs: Mapping[str, TapSpec]

    @abstractmethod
    def prepare(self, batch: Batch) -> Inputs:
        """What the network reads, made of the points; caps are those of the mode (training or evaluation)."""

    @abstractmethod
    def shares_input_with(self, other: Detector) -> bool:
        """Whether this detector can work on what `other` prepares, so that it is made once for both."""

    @abstractmethod
    def forward(self, batch: Batch, inputs: Inputs | None = None) -> DetectorOutput:
        """Prepares by itself if `inputs` is None. Given the same `inputs`, the rows of two detectors agree."""

    @abstractmethod
    def loss(self, output: DetectorOutput, batch: Batch, ranked_by: DetectorOutput | None = None) -> Losses:
        """The task loss. Nothing is stored or changed: asking twice gives the same number.

        With `ranked_by`, the output of another network on the same places decides which of them stand for the labelled
        objects: those where that network's own loss would be lowest. An InputError where the two do not have the same
        places.
        """

    @abstractmethod
    def decode(self, output: DetectorOutput) -> list[Boxes]:
        """Detections with scores, one entry a frame, best first."""

    def for_inference(self) -> Detector:
        """A frozen copy in evaluation mode whose outputs, taps included, are this one's to rounding; it may be faster,
        and cannot be trained.
        """
        return copy.deepcopy(self).eval().requires_grad_(False)

    def layer_graph(self) -> tuple[Layer, ...]:
        """All layers with weights in the order in which they work, by which a thinner detector can start from this; ()
        where that is not known.
        """
        return ()


def count_parameters(module: nn.Module) -> int:
    """Number of trainable and frozen parameters, each shared one once."""
    return sum(parameter.numel() for parameter in module.parameters())
