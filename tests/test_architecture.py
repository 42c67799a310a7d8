"""The plan of the house, checked from the syntax tree: who may import whom, and where names become objects."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lidistill"

# A room may import the rooms named here and itself. Reading down: nothing imports what lies above it.
# Rooms that may import types may also import what types is made of: errors, settings and maps.
MAY_IMPORT = {
    "errors": set(),
    "settings": {"errors"},
    "catalogue": set(),
    "maps": {"errors"},
    "types": {"errors", "settings", "maps"},
    "files": {"types"},
    "stopping": set(),
    "progress": {"types"},
    "half_precision": {"types"},
    "reading": {"errors"},
    "parsing": {"errors", "reading"},
    "weights": {"types", "reading", "parsing"},
    "array_files": {"types", "files", "reading", "parsing"},
    "run_folder": {"types", "files", "reading", "parsing"},
    "configuration": {"types", "reading", "parsing"},
    "ops": {"types"},
    "simulate": {"types", "files"},
    "data": {"types", "files", "reading", "parsing", "array_files", "ops"},
    "detectors": {"types", "ops"},
    "distillation": {"types", "ops"},
    "evaluation": {"types", "files", "reading", "parsing", "array_files", "ops", "half_precision", "datasets"},
    "datasets": {
        "types",
        "files",
        "stopping",
        "reading",
        "parsing",
        "array_files",
        "progress",
        "ops",
        "simulate",
        "data",
        "evaluation",
    },
    "training": {
        "types",
        "files",
        "stopping",
        "reading",
        "parsing",
        "array_files",
        "weights",
        "progress",
        "run_folder",
        "ops",
        "data",
        "detectors",
        "distillation",
        "half_precision",
    },
    "deploy": {"types", "files", "reading", "parsing", "run_folder", "ops", "half_precision"},
    "report": {"types", "files", "reading", "parsing", "array_files", "run_folder", "evaluation", "datasets"},
    "interop": {"types", "files", "reading", "parsing", "weights", "ops", "detectors"},
    "external": {"types", "configuration", "distillation"},
    "experiment": {"types", "configuration", "datasets", "data", "detectors", "distillation", "external", "training"},
    "jobs": {"*"},
    "cli": {"errors", "types", "stopping", "catalogue", "run_folder", "jobs", "report", "datasets", "evaluation"},
    "__init__": set(),
}

TABLES = {
    "DATASETS": "datasets/__init__.py",
    "DETECTORS": "detectors/__init__.py",
    "METHODS": "distillation/__init__.py",
    "PROTOCOLS": "datasets/__init__.py",
}

FILES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module] if node.module != "lidistill" else [f"lidistill.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("lidistill.") and len(name.split(".")) > 1}
    return found


def test_every_room_is_on_the_plan():
    assert {room_of(path) for path in FILES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = room_of(path)
    allowed = MAY_IMPORT[room] | {room} | ({"errors", "settings", "maps"} if "types" in MAY_IMPORT[room] else set())
    if "*" not in allowed:
        beyond = imports(path) - allowed - {"__version__"}
        assert not beyond, f"{room} may not import {', '.join(sorted(beyond))}"


def test_methods_know_no_detector_and_detectors_no_method():
    for path in FILES:
        if room_of(path) == "distillation":
            assert "detectors" not in imports(path)
        if room_of(path) == "detectors":
            assert "distillation" not in imports(path)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_one_dict_literal_in_its_room(table):
    homes = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = (
                [node.target]
                if isinstance(node, ast.AnnAssign)
                else node.targets
                if isinstance(node, ast.Assign)
                else []
            )
            if any(isinstance(target, ast.Name) and target.id == table for target in targets):
                homes.append(str(path.relative_to(SOURCE)))
                assert isinstance(node.value, ast.Dict), f"{table} is not a dict literal"
    assert homes == [TABLES[table]]


def test_only_training_imports_lightning():
    for path in FILES:
        lightning = any(
            (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("lightning", "pytorch_lightning")))
            or (
                isinstance(node, ast.Import)
                and any(alias.name.startswith(("lightning", "pytorch_lightning")) for alias in node.names)
            )
            for node in ast.walk(ast.parse(path.read_text()))
        )
        assert not lightning or room_of(path) == "training", path


def test_nothing_is_unpickled():
    forbidden = re.compile(r"allow_pickle=True|weights_only=False|pickle\.loads?\(|\bUnpickler\b")
    for path in FILES:
        assert not forbidden.search(path.read_text()), path


def test_no_room_is_called_after_nothing():
    assert not [path for path in FILES if path.stem in {"utils", "common", "misc", "helpers", "core"}]


def test_there_is_enough_test_code():
    def lines(paths):
        return sum(len([line for line in path.read_text().splitlines() if line.strip()]) for path in paths)

    assert lines((ROOT / "tests").rglob("*.py")) >= 0.6 * lines(FILES)
