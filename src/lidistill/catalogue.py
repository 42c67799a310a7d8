"""Names and facts of detectors, methods, datasets and sensors, for commands that run without importing torch.

`make catalogue` builds every method on every detector and writes what it finds to `catalogue.json`. A test checks that
the file agrees with the tables DETECTORS and METHODS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class MethodFacts:
    """Facts of one distillation method, at default settings and for a student with a quarter of the parameters."""

    name: str
    idea: str
    paper: str
    needs: tuple[str, ...]  # required besides the taps, in words
    kinds: tuple[str, ...]  # kinds of taps that it can use, in words; empty if it uses heads only
    has_layers: bool  # whether it has layers that are trained with the student and then discarded
    taps: Mapping[str, tuple[str, ...]]  # detector -> default taps; empty if it uses heads only
    refusals: Mapping[str, str]  # detector -> why the method does not run on it


@dataclass(frozen=True)
class Catalogue:
    """The names of all detectors and the facts of all methods."""

    detectors: tuple[str, ...]
    sources: tuple[str, ...]  # the form of each dataset on the command line
    sensors: tuple[str, ...]  # of the simulator, the default first
    methods: tuple[MethodFacts, ...]


@cache
def catalogue() -> Catalogue:
    """Read `catalogue.json`, once."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    methods = tuple(
        MethodFacts(
            **{
                **facts,
                "needs": tuple(facts["needs"]),
                "kinds": tuple(facts["kinds"]),
                "taps": {detector: tuple(taps) for detector, taps in facts["taps"].items()},
            }
        )
        for facts in content["methods"]
    )
    return Catalogue(tuple(content["detectors"]), tuple(content["sources"]), tuple(content["sensors"]), methods)
