"""Settings in and out of plain containers: files, dotted overrides, and errors that name the key. Parsing itself is pydantic's and YAML's."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from lidistill.types import InputError, unknown_name

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Nested tuples as lists, as YAML and JSON hold them."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def named(settings: Any) -> dict[str, Any]:
    """A settings dataclass with the name under which its table lists it."""
    return {"name": type(settings).name, **plain(asdict(settings))}


def from_named(content: Any, kind: str, table: Mapping[str, type[T]], where: str) -> T:
    """The settings that `table` lists under content["name"]."""
    if not isinstance(content, Mapping) or "name" not in content:
        raise InputError(f"{where}: give a mapping with the key 'name', one of {', '.join(sorted(table))}")
    name = content["name"]
    if name not in table:
        raise unknown_name(kind, str(name), table)
    return settings_from(table[name], {key: value for key, value in content.items() if key != "name"}, f"{where} {name}")


def settings_from(cls: type[T], content: Any, where: str) -> T:
    """A settings dataclass from plain containers. An unknown key, a missing one or a wrong type is an InputError that names it."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: give a mapping of settings, not {type(content).__name__}")
    try:
        return TypeAdapter(cls).validate_python(dict(content))
    except ValidationError as error:
        raise _sentence(error, cls, where) from error


def _sentence(error: ValidationError, cls: type, where: str) -> InputError:
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden")]
    first = (unknown or problems)[0]
    path = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return InputError(f"{where}: {cause}")
    if unknown:
        return unknown_key(where, path, _known_keys(cls, first["loc"][:-1]))
    if first["type"] in ("missing", "missing_argument"):
        return InputError(f"{where}: the key {path!r} is missing; add it, or start from a preset")
    return InputError(f"{where}: {path} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}")


def _known_keys(cls: Any, parents: Sequence[Any]) -> set[str]:
    """The keys of the settings found by following `parents` from `cls`."""
    for part in parents:
        hints = get_type_hints(cls) if is_dataclass(cls) else {}
        choices = get_args(hints.get(str(part))) or (hints.get(str(part)),)
        cls = next((choice for choice in choices if is_dataclass(choice)), None)
    return {f.name for f in fields(cls)} if is_dataclass(cls) else set()


def unknown_key(where: str, key: str, known: Collection[str]) -> InputError:
    """The error for a key that the settings at `where` do not have, with the nearest known one."""
    near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return InputError(f"{where}: unknown key {key!r}; {hint}")


def apply_override(content: dict[str, Any], text: str) -> None:
    """Set one value of nested settings from `a.b=value`, in place. In a list of named settings the name is a part of the path."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError(f"override {text!r}: write it as key=value, for example training.steps=300")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"override {text!r}: the value is not valid YAML; quote it if it is text") from error
    parts = path.split(".")
    if parts[0] == "methods":
        parts.insert(0, "distillation")
    place: Any = content
    for depth, part in enumerate(parts[:-1]):
        place = _child(place, part, ".".join(parts[: depth + 1]), text)
    if isinstance(place, list):
        raise InputError(f"override {text!r}: {path!r} addresses a list; give the whole list, or a method's setting as methods.NAME.key=value")
    # An unknown last key is left to the settings themselves, which know the nearest one.
    place[parts[-1]] = parsed


def _child(place: Any, part: str, path: str, text: str) -> Any:
    if isinstance(place, list):
        for item in place:
            if isinstance(item, dict) and item.get("name") == part:
                return item
        raise unknown_name("method in this run", part, [item["name"] for item in place if isinstance(item, dict)])
    if not isinstance(place, dict) or part not in place:
        raise unknown_key(f"override {text!r}", path, set(place) if isinstance(place, dict) else set())
    if place[part] is None:
        place[part] = {}
    return place[part]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or an InputError that names the file and line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a configuration file, a preset or a run folder") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1} " if mark else ""
        raise InputError(f"{path}: {line}is not valid YAML; check its indentation and quotes") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no settings; start from a run's experiment.yaml")
    return content
