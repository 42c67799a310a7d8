"""What each distillation method is, what it needs, and on which detectors it runs: found by building it, not from a
list.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import cache
from typing import Any

import torch

from lidistill.catalogue import FILE, Catalogue, MethodFacts
from lidistill.configuration import plain
from lidistill.datasets import DATASETS
from lidistill.detectors import DETECTORS
from lidistill.detectors.presets import PRESETS, preset
from lidistill.detectors.width import WidthRule
from lidistill.distillation import METHODS
from lidistill.distillation.method import NEEDS, DistillationMethod, MethodConfig, Specs
from lidistill.files import write_text
from lidistill.simulate import PRESETS as PRESETS_OF_SENSORS
from lidistill.types import InputError

COMPRESSION = 4.0
KINDS = {"map": "maps", "set": "sets"}  # bird's-eye view maps; pillars, voxels or points


def examined() -> Catalogue:
    """The detectors, and the facts of every entry of METHODS."""
    pairs = {name: tap_specs(name) for name in DETECTORS}
    methods = tuple(method_facts(settings(), pairs) for settings in METHODS.values())
    sources = tuple(dataset.source_form for dataset in DATASETS.values())
    return Catalogue(tuple(DETECTORS), sources, tuple(PRESETS_OF_SENSORS), methods)


def method_facts(settings: MethodConfig, pairs: Mapping[str, tuple[Specs, Specs]] | None = None) -> MethodFacts:
    """`pairs`: tap specs of a teacher and a student, by the detector's name; those of all detectors by default."""
    pairs = {name: tap_specs(name) for name in DETECTORS} if pairs is None else pairs
    taps, refusals, has_layers = {}, {}, False
    for detector, (taught, learnt) in pairs.items():
        try:
            method = built(settings, taught, learnt)
        except InputError as error:
            refusals[detector] = str(error)
            continue
        taps[detector] = taps_of(method)
        has_layers = has_layers or any(True for _ in method.parameters())
    kinds = tuple(
        word for kind, word in KINDS.items() if any(_works_on(settings, kind, *specs) for specs in pairs.values())
    )
    needs = tuple(NEEDS[need] for need in settings.needs)
    return MethodFacts(settings.name, idea_of(type(settings)), settings.paper, needs, kinds, has_layers, taps, refusals)


@cache
def tap_specs(detector: str) -> tuple[Specs, Specs]:
    """Of a teacher and its thinner student, at the sizes for the simulator where there are any. No weight is stored."""
    datasets = [dataset for name, dataset in PRESETS if name == detector]
    config = preset(detector, "simulated" if "simulated" in datasets else datasets[0])
    with torch.device("meta"):
        return config.build().tap_specs, config.thinner(WidthRule.for_compression(COMPRESSION)).build().tap_specs


def built(settings: MethodConfig, taught: Specs, learnt: Specs) -> DistillationMethod:
    """The method without weights, or an InputError where it cannot work on these taps and heads."""
    with torch.device("meta"):
        method = settings.build(taught, learnt)
    if "predictions" in settings.needs:
        for role, specs in (("teacher", taught), ("student", learnt)):
            if not any(spec.kind == "head" for spec in specs.values()):
                raise InputError(
                    f"{settings.name} compares predictions, and the {role} has no detection head; choose a method on "
                    "features"
                )
    return method


def taps_of(method: DistillationMethod) -> tuple[str, ...]:
    """Names of the taps that a method takes; none where it takes heads alone."""
    chosen: dict[str, Any] = {f.name: getattr(method.config, f.name) for f in fields(method.config)}
    if "tap" in chosen:
        return (chosen["tap"],)
    return tuple(chosen.get("taps", ())) or getattr(method, "taps", ())  # empty settings leave the choice to the module


def idea_of(settings: type[MethodConfig]) -> str:
    """The first sentence of the method's file, without its "NAME (SOURCE): " and other asides."""
    text = " ".join((sys.modules[settings.__module__].__doc__ or "").split())
    sentence = re.sub(r" \([^)]*\)", "", text.partition(". ")[0]).rstrip(".")
    idea = sentence.rpartition(": ")[2]
    return idea[:1].upper() + idea[1:]


def published_settings(settings: MethodConfig) -> dict[str, dict[str, Any]]:
    """Settings that the method's own file gives as published, by detector, where they differ from `settings`, its
    defaults.
    """
    published: Mapping[str, MethodConfig] = vars(sys.modules[type(settings).__module__]).get("PUBLISHED", {})
    return {
        detector: {
            f.name: plain(getattr(other, f.name))
            for f in fields(other)
            if getattr(other, f.name) != getattr(settings, f.name)
        }
        for detector, other in published.items()
    }


def write_catalogue() -> None:
    """Keep what was found, for commands that cannot wait for it."""
    write_text(FILE, json.dumps(asdict(examined()), indent=1, ensure_ascii=False) + "\n")


def _works_on(settings: MethodConfig, kind: str, taught: Specs, learnt: Specs) -> bool:
    """Whether the method accepts a tap of `kind` that both networks have."""
    keys = {f.name for f in fields(settings)} & {"tap", "taps"}
    tap = next((name for name, spec in taught.items() if spec.kind == kind and name in learnt), None)
    if not keys or tap is None:
        return False
    choice: dict[str, Any] = {key: tap if key == "tap" else (tap,) for key in keys}
    try:
        built(replace(settings, **choice), taught, learnt)
    except InputError:
        return False
    return True


if __name__ == "__main__":
    write_catalogue()
