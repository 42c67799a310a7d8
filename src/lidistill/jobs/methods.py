"""What each distillation method is, what it needs, and on which detectors it runs: found by building it, not from a list."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table as ScreenTable
from rich.text import Text

from lidistill.configuration import plain
from lidistill.detectors import DETECTORS
from lidistill.detectors.base import WidthRule
from lidistill.detectors.presets import PRESETS, preset
from lidistill.distillation import METHODS
from lidistill.distillation.base import NEEDS, DistillationMethod, MethodConfig, Specs
from lidistill.experiment import method_settings
from lidistill.jobs.method_settings import MethodSetting, settings_table
from lidistill.report.blocks import Table
from lidistill.report.markdown import table_as_markdown
from lidistill.types import InputError

COMPRESSION = 4.0
KINDS = {"map": "maps", "set": "sets"}  # bird's-eye view maps; pillars, voxels or points
HEADS = "heads"  # what a method without taps works on
NOT = "no"
NOTHING = "–"
PIPED_WIDTH = 130  # characters of a line where nobody looks at it on a terminal


@dataclass(frozen=True)
class MethodRow:
    """One method at its defaults, for a student of a quarter of the parameters."""

    name: str
    idea: str
    paper: str
    needs: tuple[str, ...]  # of distillation.base.NEEDS
    kinds: tuple[str, ...]  # of taps that it can work on, of KINDS; none: it works on heads alone
    has_layers: bool  # of its own, trained beside the student and thrown away
    taps: Mapping[str, tuple[str, ...]]  # detector -> the taps it takes there; none: heads alone
    refusals: Mapping[str, str]  # detector on which it does not run -> why


def method_rows() -> list[MethodRow]:
    """A row for each entry of METHODS."""
    pairs = {name: tap_specs(name) for name in DETECTORS}
    return [method_row(settings(), pairs) for settings in METHODS.values()]


def method_row(settings: MethodConfig, pairs: Mapping[str, tuple[Specs, Specs]]) -> MethodRow:
    """`pairs` are the tap specs of a teacher and a student, by the detector's name."""
    taps, refusals, has_layers = {}, {}, False
    for detector, (taught, learnt) in pairs.items():
        try:
            method = built(settings, taught, learnt)
        except InputError as error:
            refusals[detector] = str(error)
            continue
        taps[detector] = taps_of(method)
        has_layers = has_layers or any(True for _ in method.parameters())
    kinds = tuple(kind for kind in KINDS if any(_works_on(settings, kind, *specs) for specs in pairs.values()))
    return MethodRow(settings.name, idea_of(type(settings)), settings.paper, settings.needs, kinds, has_layers, taps, refusals)


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
                raise InputError(f"{settings.name} compares predictions, and the {role} has no detection head; choose a method on features")
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


def published_settings(name: str) -> dict[str, dict[str, Any]]:
    """Settings that a method's own file gives as published, by detector, where they differ from the defaults."""
    defaults = method_settings(name)
    published: Mapping[str, MethodConfig] = vars(sys.modules[type(defaults).__module__]).get("PUBLISHED", {})
    return {
        detector: {f.name: plain(getattr(settings, f.name)) for f in fields(settings) if getattr(settings, f.name) != getattr(defaults, f.name)}
        for detector, settings in published.items()
    }


def methods_as_markdown() -> str:
    """Both tables of `docs/methods.md`; names in the first are links to their sections."""
    rows = method_rows()
    what, where = map(table_as_markdown, overview(rows))
    for row in rows:
        written = row.name.replace("_", r"\_")
        what = what.replace(f"\n| {written} |", f"\n| [{written}](#{section_of(row.name)}) |")
    return f"{what}\n\n{where}"


def section_of(name: str) -> str:
    """Anchor of the section of `docs/methods.md` that describes the method."""
    return name.replace("_", "-")


def print_methods(name: str | None = None) -> None:
    """All methods on the terminal, or all settings of one."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    if name is None:
        rows = method_rows()
        for table in overview(rows):
            _print(console, table)
        for row in rows:
            for detector, reason in row.refusals.items():
                console.print(f"{row.name} does not run on {detector}: {reason}", highlight=False, markup=False)
        console.print("All settings of one of them: lidistill methods NAME", highlight=False)
        return
    settings = method_settings(name)
    row = method_row(settings, {detector: tap_specs(detector) for detector in DETECTORS})
    console.print(f"{name}: {row.idea}. {row.paper}.", highlight=False, markup=False)
    layers = "layers of its own" if row.has_layers else "no layer of its own"
    console.print(f"Works on: {_kinds(row)}. Needs: {_needs(row)}. Has {layers}.\n", highlight=False, markup=False)
    _print(console, settings_table(type(settings)))
    for detector, changed in published_settings(name).items():
        texts = " ".join(f"{key}={MethodSetting.shown(value)}" for key, value in changed.items()) or "the defaults"
        console.print(f"published for {detector}: {texts}", highlight=False, markup=False)
    console.print(f"Set one on the command line: methods.{name}.KEY=VALUE", highlight=False, markup=False)


def overview(rows: Iterable[MethodRow]) -> tuple[Table, Table]:
    """What the methods are; and what they work on, need and run on."""
    rows = list(rows)
    what = Table(("Method", "What it teaches", "Paper"), tuple((row.name, row.idea, row.paper) for row in rows), text_columns=3)
    columns = ("Method", "Works on", "Needs", "Own layers", *DETECTORS)
    lines = tuple((row.name, _kinds(row), _needs(row), "yes" if row.has_layers else NOT, *(_runs(row, name) for name in DETECTORS)) for row in rows)
    return what, Table(columns, lines, text_columns=len(columns))


def _runs(row: MethodRow, detector: str) -> str:
    return ", ".join(row.taps[detector]) or HEADS if detector in row.taps else NOT


def _kinds(row: MethodRow) -> str:
    return ", ".join(KINDS[kind] for kind in row.kinds) or HEADS


def _needs(row: MethodRow) -> str:
    return ", ".join(NEEDS[need] for need in row.needs) or NOTHING


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


def _print(console: Console, table: Table) -> None:
    screen = ScreenTable(box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(table.columns):
        screen.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in table.rows:
        screen.add_row(*map(Text, row))
    console.print(screen)
