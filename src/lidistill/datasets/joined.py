"""Several datasets as one to train on, such as simulated streets and a few recorded frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, repeat
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import Field

from lidistill.data.source import DataSettings, FrameSource, parse_data
from lidistill.settings import Count, Names, Text
from lidistill.types import DatasetSpec, Frame, InputError

BETWEEN = "+"


@dataclass(frozen=True)
class JoinedData(DataSettings):
    """The training frames of several datasets. Every other split is that of the last dataset, which is the judge.

    They need the same point features and the same protocol.
    """

    name: ClassVar[str] = "joined"
    source_form: ClassVar[str] = "joined:DATASET+DATASET"
    table: ClassVar[Mapping[str, type[DataSettings]]] = MappingProxyType({})  # set by lidistill.datasets to its own

    # each as on the command line, such as "simulated" or "kitti:/data/kitti"
    parts: Annotated[tuple[Text, ...], Field(min_length=2, max_length=100)]
    repeats: Annotated[tuple[Count, ...], Field(max_length=100)] = ()  # how often each counts; empty: once each
    classes: Names = ("Car", "Pedestrian", "Cyclist")

    def __post_init__(self) -> None:
        if self.repeats and len(self.repeats) != len(self.parts):
            raise InputError(
                f"data.repeats has {len(self.repeats)} numbers for {len(self.parts)} datasets; give one for each"
            )
        first, *others = (part.spec for part in self._parts)
        for text, spec in zip(self.parts[1:], others, strict=True):
            for what in ("point_features", "protocol"):
                if getattr(spec, what) != getattr(first, what):
                    raise InputError(
                        f"data.parts: {text} has {what} {getattr(spec, what)} and {self.parts[0]} has "
                        f"{getattr(first, what)}; join datasets that agree in it"
                    )

    @classmethod
    def at(cls, place: str) -> JoinedData:
        parts = tuple(place.split(BETWEEN))
        if len(parts) < 2 or not all(parts):
            raise InputError(
                f"joined needs two or more datasets; write joined:simulated-kitti{BETWEEN}kitti:/path, the one to "
                "score on last"
            )
        return cls(parts)

    @cached_property
    def _parts(self) -> tuple[DataSettings, ...]:
        try:
            return tuple(parse_data(part, self.table).with_classes(self.classes) for part in self.parts)
        except InputError as error:
            raise InputError(f"data.parts: {error}") from error

    def with_classes(self, classes: tuple[str, ...]) -> JoinedData:
        return replace(self, classes=classes)

    @property
    def spec(self) -> DatasetSpec:
        """That of the last dataset."""
        return self._parts[-1].spec

    def open(self, split: str) -> FrameSource:
        """The joined training frames for "train"; any other split of the last dataset."""
        if split != "train":
            return self._parts[-1].open(split)
        return JoinedFrames([part.open(split) for part in self._parts], self.repeats or (1,) * len(self.parts))


class JoinedFrames(FrameSource):
    """The frames of several sources one after the other, each source as often as `repeats` says."""

    def __init__(self, sources: Sequence[FrameSource], repeats: Sequence[int]) -> None:
        self.sources = tuple(chain.from_iterable(map(repeat, sources, repeats)))
        self.ids = tuple(f"{place}-{name}" for place, source in enumerate(self.sources) for name in source.ids)
        self._ends = tuple(accumulate(map(len, self.sources)))
        specs = [source.spec for source in sources]
        self.spec = replace(
            specs[-1],
            simulated=any(spec.simulated for spec in specs),
            version=BETWEEN.join(sorted({spec.version for spec in specs if spec.version})),
        )

    def __getitem__(self, row: int) -> Frame:
        source, own = self._place(row)
        return replace(source[own], id=self.ids[row])

    def earlier(self, row: int, count: int) -> Iterator[Frame]:
        source, own = self._place(row)
        return source.earlier(own, count)

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(source.fingerprint() for source in self.sources).encode()).hexdigest()

    def _place(self, row: int) -> tuple[FrameSource, int]:
        """The source of a row, and the row there."""
        row = range(len(self))[row]
        for source, end in zip(self.sources, self._ends, strict=True):
            if row < end:
                return source, row - end + len(source)
        raise AssertionError("the last end is the number of frames")
