"""Connections between the layers of a network, as plain data in the order of the forward pass."""

from __future__ import annotations

from dataclasses import dataclass

INPUT = "input"  # name of the network's input channels, whose number does not depend on its width


@dataclass(frozen=True)
class ChannelBlock:
    """One block of a layer's input channels: the channels of `source`, each `copies` times in a row, as when cells
    along z are flattened into channels.
    """

    source: str  # output of another layer, or INPUT
    copies: int = 1


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution, with the BatchNorm on its output.

    The outputs of layers with the same `output` are added, so they have the same channels.
    """

    name: str  # prefix of its tensors in the state dict, before ".weight" and ".bias"
    norm: str | None  # prefix of its BatchNorm's tensors; None if it has none
    inputs: tuple[ChannelBlock, ...]  # concatenated in this order
    output: str | None  # name of its output channels; None if each has a fixed meaning, as in a head
    axes: tuple[int, int] = (0, 1)  # axes of its weight: output channels, input channels

    def within(self, module: str) -> Layer:
        """The same layer inside a larger module, where its module is the part called `module`; names of channels are
        unchanged.
        """
        return Layer(
            f"{module}.{self.name}",
            None if self.norm is None else f"{module}.{self.norm}",
            self.inputs,
            self.output,
            self.axes,
        )
