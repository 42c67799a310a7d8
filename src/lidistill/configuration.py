"""Converts settings to and from plain containers: YAML files, dotted overrides, and errors that name the key.

PyYAML parses the text and pydantic checks the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from lidistill import parsing
from lidistill.errors import InputError, shown, unknown_key, unknown_name
from lidistill.settings import settings_from

T = TypeVar("T")
LONGEST_OVERRIDE = 10_000  # characters


def plain(value: Any) -> Any:
    """Turn nested tuples into lists, since YAML and JSON have no tuples."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def named(settings: Any) -> dict[str, Any]:
    """Turn settings into a mapping whose key "name" is the name of their class in its table."""
    return {"name": type(settings).name, **plain(asdict(settings))}


def from_named(content: Any, kind: str, table: Mapping[str, type[T]], where: str) -> T:
    """Make settings of the class that `table` lists under content["name"].

    `where` names the source of `content` in errors. InputError if the name or a setting is invalid.
    """
    if not isinstance(content, Mapping) or "name" not in content:
        raise InputError(
            f"{where}: give the {kind} as a mapping with the key 'name', one of {', '.join(sorted(table))}"
        )
    name = content["name"]
    if not isinstance(name, str) or name not in table:
        raise InputError(f"{where}: {unknown_name(kind, name, table)}")
    return settings_from(table[name], {key: value for key, value in content.items() if key != "name"}, where)


def split_override(text: str) -> tuple[str, str]:
    """Split `a.b=value` into key and value; InputError if it has no such form or is too long."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"override {shown(text)}: write it as key=value, for example training.steps=300")
    if len(text) > LONGEST_OVERRIDE:
        raise InputError(
            f"override {shown(text)} has {len(text)} characters; at most {LONGEST_OVERRIDE} are allowed; write the "
            "settings into a YAML file"
        )
    return key, value


def apply_overrides(content: dict[str, Any], texts: Sequence[str]) -> None:
    """Apply texts such as `a.b=value` to nested settings, in place and in order.

    If a key is given twice, the last value counts. An entry of a list of named settings is addressed by its name.
    InputError if a key or a value is invalid.
    """
    for text in texts:
        key, value = split_override(text)
        _apply_override(content, key, value, f"override {shown(text)}")


def _apply_override(content: dict[str, Any], key: str, value: str, where: str) -> None:
    parsed = parsing.parse_yaml(value, where, "give a value in YAML, quoted if it is text")
    parts = key.split(".")
    if parts[0] == "methods":
        parts.insert(0, "distillation")
    place: Any = content
    for depth, part in enumerate(parts[:-1]):
        place = _child(place, part, ".".join(parts[: depth + 1]), where)
    if isinstance(place, list):
        raise InputError(
            f"{where}: {key} addresses a list; give the whole list, or a method's setting as methods.NAME.key=value"
        )
    if not isinstance(place, dict):
        raise InputError(
            f"{where}: {'.'.join(parts[:-1])} is {shown(place)}, which has no settings of its own; set it as a whole"
        )
    # An unknown last key is kept here: the settings class refuses it later and names the nearest key.
    place[parts[-1]] = parsed


def _child(place: Any, part: str, key: str, where: str) -> Any:
    if isinstance(place, list):
        for item in place:
            if isinstance(item, dict) and item.get("name") == part:
                return item
        names = [item["name"] for item in place if isinstance(item, dict)]
        raise InputError(f"{where}: {unknown_name('method in this run', part, names)}")
    if not isinstance(place, dict) or part not in place:
        raise unknown_key(where, key, set(place) if isinstance(place, dict) else set())
    if place[part] is None:
        place[part] = {}
    return place[part]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of settings; InputError names the file and the line."""
    return parsing.read_yaml(path, "check it against a run's experiment.yaml, or start from a preset")
