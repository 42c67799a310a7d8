"""The plan of the house, checked from the syntax tree: who may import whom, and what may be named where."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lidistill"

# Single files that every room may use, and which of them each uses itself.
FOUNDATION = {
    "errors": set(),
    "settings": {"errors"},
    "map_grid": {"errors"},
    "detector_inputs": {"errors", "settings"},
    "types": {"errors", "settings", "map_grid"},
    "stopping": set(),
    "reading": {"errors"},
    "parsing": {"errors", "reading"},
    "progress": {"types"},
    "files": {"types"},
    "half_precision": {"types"},
    "weights": {"types", "reading"},
    "array_files": {"types", "files", "reading"},
    "run_folder": {"types", "files", "reading", "parsing"},
}

# A room may import the rooms named here, the foundation, and itself. Reading down: nothing imports what lies above it.
ROOMS = {
    "ops": set(),
    "simulate": set(),
    "outputs": {"ops"},
    # Siblings: none imports another.
    "data": {"ops"},
    "evaluation": {"ops"},
    "detectors": {"outputs", "ops"},
    "distillation": {"outputs", "ops"},
    # Each is a sibling of the others, too.
    "datasets": {"data", "evaluation", "simulate", "ops"},
    "training": {"data", "detectors", "distillation", "outputs", "ops"},
    "interop": {"detectors", "outputs", "ops"},
    "deploy": {"detectors", "outputs", "ops"},
    "report": {"evaluation"},
    "external_methods": {"configuration", "distillation"},
    "configuration": set(),
    "experiment": {"configuration", "datasets", "data", "detectors", "distillation", "external_methods", "training"},
    "jobs": {"*"},
    "catalogue": set(),
    "cli": {"catalogue", "jobs", "report", "datasets", "evaluation"},
    "__init__": set(),
}

TABLES = {
    "DATASETS": "datasets/__init__.py",
    "PROTOCOLS": "datasets/__init__.py",
    "DETECTORS": "detectors/__init__.py",
    "METHODS": "distillation/__init__.py",
}

# Where code may name a dataset: its own folder, what reads other tools' files, and the presets named after one.
NAMES_DATASETS = ("datasets/", "interop/", "detectors/presets.py", "simulate/sensor_presets.py")
DATASET_NAMES = re.compile("kitti|nuscenes|waymo", re.IGNORECASE)
# Parts of one benchmark's keys, and its unit: the protocol's to write, nobody else's.
KEY_OF_A_BENCHMARK = re.compile(r"strict[/ ]|\b(loose|R11|R40|easy|moderate|bbox|aos|AP)\b")

FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {
    "lidistill." + ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
}


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports, inside functions and for types alone, too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else str(node.module))
    return frozenset(name for name in found if name.startswith("lidistill."))


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path)} - {room_of(path)}


def texts(path: Path) -> Iterator[str]:
    """Names and strings of a file's code, without its docstrings; comments are not in the tree."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body[0] for node in ast.walk(tree(path)) if isinstance(node, documented) and node.body]
    docstrings = {first.value for first in bodies if isinstance(first, ast.Expr)}
    for node in ast.walk(tree(path)):
        if node not in docstrings:
            yield from (value for _, value in ast.iter_fields(node) if isinstance(value, str))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_down(path):
    room = room_of(path)
    allowed = FOUNDATION.get(room) if room in FOUNDATION else ROOMS[room] | FOUNDATION.keys()
    beyond = set() if "*" in allowed else rooms_used(path) - allowed
    assert not beyond, f"{room} may not import {', '.join(sorted(beyond))}"


def test_no_module_imports_itself_on_a_way_round():
    """Type-only imports count: a circle of them is two files that are one."""
    waiting = {name: set(imports(path)) & MODULES.keys() - {name} for name, path in MODULES.items()}
    while ready := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_one_dict_literal_in_its_room(table):
    homes = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                if any(isinstance(target, ast.Name) and target.id == table for target in targets):
                    homes.append(relative(path))
                    assert isinstance(node.value, ast.Dict), f"{table} is not a dict literal"
    assert homes == [TABLES[table]]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_dataset_is_named_in_its_own_places_only(path):
    if not relative(path).startswith(NAMES_DATASETS):
        named = [text[:60] for text in texts(path) if DATASET_NAMES.search(text)]
        assert not named, f"{relative(path)} names a dataset: {named}"


@pytest.mark.parametrize("room", ["evaluation", "report"])
def test_what_all_protocols_share_knows_no_key_and_no_unit_of_one(room):
    for path in FILES:
        if room_of(path) == room:
            assert not [text for text in texts(path) if KEY_OF_A_BENCHMARK.search(text)], relative(path)


def test_texts_are_those_of_code_alone(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        '"""KITTI."""\nfrom kitti import x as y\n\ndef f(waymo):\n    """KITTI."""\n    return "a"  # KITTI\n'
    )
    assert [text for text in texts(file) if DATASET_NAMES.search(text)] == ["kitti", "waymo"]
    assert "a" in set(texts(file))


@pytest.mark.parametrize("room", ["distillation", "training", "deploy"])
def test_nothing_asks_what_kind_a_head_or_a_tap_is(room):
    """Their verbs answer instead; see the seams in docs/architecture.md."""
    heads = re.compile("(Anchor|Center|Point|Roi|Row|Map)HeadOutput")
    for path in FILES:
        if room_of(path) != room:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                assert "kind" not in [getattr(side, "attr", getattr(side, "id", "")) for side in sides], path
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                assert not heads.search(ast.unparse(node.args[1])), path


def test_only_training_imports_lightning():
    for path in FILES:
        names = [
            name
            for node in ast.walk(tree(path))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        ]
        assert room_of(path) == "training" or not any("lightning" in name for name in names), path


def test_nothing_is_unpickled():
    forbidden = re.compile(r"allow_pickle=True|weights_only=False|pickle\.loads?\(|\bUnpickler\b")
    for path in FILES:
        assert not forbidden.search(path.read_text()), path


def test_no_room_is_called_after_nothing():
    assert not [path for path in FILES if path.stem in {"utils", "common", "misc", "helpers", "core"}]


def test_files_stay_small_and_lines_short():
    """300 lines: beyond that a noun is missing. Lines of 120 characters hold for tests and benchmarks too."""
    assert {relative(path): count for path in FILES if (count := len(path.read_text().splitlines())) > 300} == {}
    for folder in ("src", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            long = [number for number, line in enumerate(path.read_text().splitlines(), start=1) if len(line) > 120]
            assert not long, f"{path}: lines {long}"


def test_there_is_enough_test_code():
    def lines(paths):
        return sum(len([line for line in path.read_text().splitlines() if line.strip()]) for path in paths)

    assert lines((ROOT / "tests").rglob("*.py")) >= 0.9 * lines(FILES)
