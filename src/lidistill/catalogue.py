"""Names and facts of detectors, methods, datasets and sensors for commands that answer before torch is imported.

`catalogue.json` is what building every method on every detector finds; `make catalogue` writes it, and a test holds it
to the tables.
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
    """One distillation method at its defaults, for a student of a quarter of the parameters."""

    name: str
    idea: str
    paper: str
    needs: tuple[str, ...]  # beside its taps, in words
    kinds: tuple[str, ...]  # of taps that it can work on, in words; none: it works on heads alone
    has_layers: bool  # of its own, trained beside the student and thrown away
    taps: Mapping[str, tuple[str, ...]]  # detector -> the taps it takes there; none: heads alone
    refusals: Mapping[str, str]  # detector on which it does not run -> why


@dataclass(frozen=True)
class Catalogue:
    detectors: tuple[str, ...]
    sources: tuple[str, ...]  # how the command line names each dataset
    sensors: tuple[str, ...]  # of the simulator, the default first
    methods: tuple[MethodFacts, ...]


@cache
def catalogue() -> Catalogue:
    """What `catalogue.json` holds."""
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
