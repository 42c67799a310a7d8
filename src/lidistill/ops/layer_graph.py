"""Which layer of a network feeds which: plain data, in the order in which the layers work."""

from __future__ import annotations

from dataclasses import dataclass

INPUT = "input"  # name of the channels that a network is given; they are the same for every width


@dataclass(frozen=True)
class ChannelBlock:
    """Channels that a layer is given, beside others: those of `source`, each `copies` times in a row, as when layers
    along z are flattened.
    """

    source: str  # output of another layer, or INPUT
    copies: int = 1


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution, with the BatchNorm on its output.

    Layers of one `output` are added up, so their channels are the same.
    """

    name: str  # of its tensors in the state, before ".weight" and ".bias"
    norm: str | None  # of its BatchNorm's tensors
    inputs: tuple[ChannelBlock, ...]  # joined in this order
    output: str | None  # name of its channels; None where each has a meaning of its own, as in the maps of a head
    axes: tuple[int, int] = (0, 1)  # of its weight: output channels, input channels

    def within(self, module: str) -> Layer:
        """The same layer where its module is a part called `module` of a larger one; names of channels stay."""
        return Layer(
            f"{module}.{self.name}",
            None if self.norm is None else f"{module}.{self.norm}",
            self.inputs,
            self.output,
            self.axes,
        )
