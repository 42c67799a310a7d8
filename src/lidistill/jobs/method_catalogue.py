"""Facts of each distillation method: what it is, what it needs, and on which detectors it runs.

The facts are found by building the method for each detector, not read from a list.
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
from lidistill.outputs import MapSpec, SetSpec, TapSpec
from lidistill.simulate import PRESETS as PRESETS_OF_SENSORS
from lidistill.types import InputError

COMPRESSION = 4.0
KINDS: dict[type[TapSpec], str] = {MapSpec: "maps", SetSpec: "sets"}  # sets are pillars, voxels or points


def examined() -> Catalogue:
    """Return the names of the detectors, and the facts of every entry of METHODS."""
    pairs = {name: tap_specs(name) for name in DETECTORS}
    methods = tuple(method_facts(settings(), pairs) for settings in METHODS.values())
    sources = tuple(dataset.source_form for dataset in DATASETS.values())
    return Catalogue(tuple(DETECTORS), sources, tuple(PRESETS_OF_SENSORS), methods)


def method_facts(settings: MethodConfig, pairs: Mapping[str, tuple[Specs, Specs]] | None = None) -> MethodFacts:
    """Return the facts of one method.

    `pairs` holds the tap specs of a teacher and a student for each detector's name; by default those of all detectors.
    """
    pairs = {name: tap_specs(name) for name in DETECTORS} if pairs is None else pairs
    taps, refusals, has_layers = {}, {}, False
    for detector, (teacher_specs, student_specs) in pairs.items():
        try:
            method = built(settings, teacher_specs, student_specs)
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
    """Return the tap specs of a detector and of its thinner student, without storing weights.

    The preset is the one for simulated data, or the first one of the detector.
    """
    datasets = [dataset for name, dataset in PRESETS if name == detector]
    config = preset(detector, "simulated" if "simulated" in datasets else datasets[0])
    with torch.device("meta"):
        return config.build().tap_specs, config.thinner(WidthRule.for_compression(COMPRESSION)).build().tap_specs


def built(settings: MethodConfig, teacher_specs: Specs, student_specs: Specs) -> DistillationMethod:
    """Build the method without storing weights; InputError if it cannot work on these taps and heads."""
    with torch.device("meta"):
        method = settings.build(teacher_specs, student_specs)
    if "predictions" in settings.needs:
        for role, specs in (("teacher", teacher_specs), ("student", student_specs)):
            if not any(spec.is_head for spec in specs.values()):
                raise InputError(
                    f"{settings.name} compares predictions, and the {role} has no detection head; choose a method on "
                    "features"
                )
    return method


def taps_of(method: DistillationMethod) -> tuple[str, ...]:
    """Return the names of the taps that a method uses; empty if it uses heads only."""
    chosen: dict[str, Any] = {f.name: getattr(method.config, f.name) for f in fields(method.config)}
    if "tap" in chosen:
        return (chosen["tap"],)
    return tuple(chosen.get("taps", ())) or getattr(method, "taps", ())  # with empty settings, the module chooses


def idea_of(settings: type[MethodConfig]) -> str:
    """Return the first sentence of the method's file, without its "NAME (SOURCE): " and parentheses."""
    text = " ".join((sys.modules[settings.__module__].__doc__ or "").split())
    sentence = re.sub(r" \([^)]*\)", "", text.partition(". ")[0]).rstrip(".")
    idea = sentence.rpartition(": ")[2]
    return idea[:1].upper() + idea[1:]


def published_settings(settings: MethodConfig) -> dict[str, dict[str, Any]]:
    """Return the published settings that differ from the defaults `settings`, by detector.

    They come from PUBLISHED in the method's file.
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
    """Write the facts of all methods to `catalogue.json`, for commands that answer without importing torch."""
    write_text(FILE, json.dumps(asdict(examined()), indent=1, ensure_ascii=False) + "\n")


def _works_on(settings: MethodConfig, kind: type[TapSpec], teacher_specs: Specs, student_specs: Specs) -> bool:
    """Whether the method can be built on a tap of `kind` that both networks have."""
    keys = {f.name for f in fields(settings)} & {"tap", "taps"}
    tap = next((name for name, spec in teacher_specs.items() if isinstance(spec, kind) and name in student_specs), None)
    if not keys or tap is None:
        return False
    choice: dict[str, Any] = {key: tap if key == "tap" else (tap,) for key in keys}
    try:
        built(replace(settings, **choice), teacher_specs, student_specs)
    except InputError:
        return False
    return True


if __name__ == "__main__":
    write_catalogue()
