"""Parses YAML, JSON and JSON lines of unknown origin, in bounded time and memory.

The result contains plain values only. Anything else raises an InputError that names the file, the line if there is one,
and a remedy.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from lidistill.errors import InputError
from lidistill.reading import MIB, read_text

MOST_YAML = MIB // 4  # an experiment takes 5 KiB
MOST_JSON = 16 * MIB  # scores take 50 KiB
MOST_LINES = 128 * MIB  # a log line takes about 300 bytes
MOST_NODES = 20_000  # values in a YAML file; an alias counts as many as its anchor contains
MOST_DEPTH = 32  # nested containers
MOST_DIGITS = 40  # of a whole number, including sign, prefix and separators
MOST_WHOLE = 2**63  # whole numbers must be smaller in magnitude

_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_TAG = "tag:yaml.org,2002:"


def read_yaml(path: str | Path, remedy: str = "check its indentation and quotes") -> dict[str, Any]:
    """Read a YAML mapping of plain values with text keys. Dates stay text; tags of other types are refused.

    InputError names the file, the line if there is one, and `remedy`.
    """
    content = parse_yaml(read_text(path, remedy, MOST_YAML), str(path), remedy)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no settings (a YAML mapping); {remedy}")
    return content


def parse_yaml(text: str, where: str, remedy: str = "check its indentation and quotes") -> Any:
    """Return the value of a YAML text; `where` names the text in errors."""
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except _Refused as error:
        raise InputError(f"{where}: {_line_of(error, text)}holds {error.problem}; {remedy}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {_line_of(error, text)}is not valid YAML; {remedy}") from error
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        # a constructor raises one of these for a tag that does not fit its value, such as !!int abc
        raise InputError(f"{where}: holds a value that does not fit its tag; {remedy}") from error


def read_json(path: str | Path, remedy: str = "write it again") -> dict[str, Any]:
    """Read a JSON object of finite numbers, texts and containers; InputError otherwise."""
    content = parse_json(read_text(path, remedy, MOST_JSON), str(path), remedy)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; {remedy}")
    return content


def parse_json(text: str, where: str, remedy: str = "write it again", line: int = 1) -> Any:
    """Return the value of a JSON text that begins in line `line` of the file that `where` names."""
    try:
        content = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: line {line + error.lineno - 1} is not valid JSON; {remedy}") from error
    except (ValueError, RecursionError) as error:
        fault = "containers nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{where}: holds {fault}; {remedy}") from error
    problem = _fault(content)
    if problem:
        raise InputError(f"{where}: {f'line {line} ' if line > 1 else ''}holds {problem}; {remedy}")
    return content


def read_json_lines(path: str | Path, remedy: str = "delete that line") -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Blank lines are skipped, and so is an invalid last line, which a kill may have cut off.
    """
    text = read_text(path, remedy, MOST_LINES)
    rows: list[dict[str, Any]] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, str(path), remedy, number)
        except InputError:
            if number == len(lines):
                continue
            raise
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} holds no JSON object; {remedy}")
        rows.append(row)
    return rows


class _Refused(yaml.MarkedYAMLError):
    """The YAML is valid but contains something that settings never need."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _PlainLoader(yaml.SafeLoader):
    """Loads null, booleans, numbers, texts, lists, and mappings with text keys; nothing else.

    It counts the nodes as it parses. An alias counts as many nodes as its anchor contains.
    """

    yaml_implicit_resolvers: ClassVar = {
        letter: [pair for pair in pairs if pair[0].removeprefix(_TAG) in ("null", "bool", "int", "float", "merge")]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes, self.depth = 0, 0
        self.anchored: dict[str, int] = {}  # anchor -> nodes

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        before = self.nodes
        if isinstance(event, yaml.AliasEvent):
            # An alias inside its own anchor has no size yet; one without an anchor is refused below.
            self.nodes += self.anchored.get(event.anchor, MOST_NODES if event.anchor in self.anchors else 0)
        self.nodes += 1
        self.depth += 1
        if self.nodes > MOST_NODES:
            raise _Refused(f"more than {MOST_NODES} values, counting the values behind each alias", event.start_mark)
        if self.depth > MOST_DEPTH:
            raise _Refused(f"more than {MOST_DEPTH} nested lists and mappings", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if not isinstance(event, yaml.AliasEvent) and event.anchor is not None:
            self.anchored[event.anchor] = self.nodes - before
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise _Refused(f"the key {shown}, which is not text (put it in quotes)", key.start_mark)
            if key.value in seen:
                raise _Refused(f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return node

    def plain_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS or abs(value := self.construct_yaml_int(node)) >= MOST_WHOLE:
            raise _Refused(f"a whole number of {len(node.value)} digits", node.start_mark)
        return value

    def plain_str(self, node: yaml.ScalarNode) -> str:
        value = self.construct_scalar(node)
        if not _is_text(value):
            raise _Refused("a character that no text can hold", node.start_mark)
        return value


_PlainLoader.add_constructor(f"{_TAG}int", _PlainLoader.plain_int)
_PlainLoader.add_constructor(f"{_TAG}str", _PlainLoader.plain_str)


def _line_of(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1} "
    if isinstance(error, yaml.reader.ReaderError):
        return f"line {text.count(chr(10), 0, error.position) + 1} "
    return ""


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _fault(content: Any) -> str | None:
    """Say what makes a parsed JSON value unacceptable; None if nothing does."""
    level, depth = [content], 0
    while level:
        if depth > MOST_DEPTH:
            return f"more than {MOST_DEPTH} nested lists and objects"
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(map(_is_text, value)):
                    return "a key with a character that no text can hold"
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                if not _is_text(value):
                    return "a character that no text can hold"
            elif isinstance(value, float) and not math.isfinite(value):
                return "a number that is not finite"
            elif isinstance(value, int) and abs(value) >= MOST_WHOLE:
                return f"a whole number of {len(str(abs(value)))} digits"
        level, depth = below, depth + 1
    return None


def _is_text(value: str) -> bool:
    """Whether a text has neither a zero byte, which ends a path, nor a lone surrogate, which UTF-8 cannot encode.

    Surrogates that stand for bytes of file names that are not UTF-8 are accepted.
    """
    return "\0" not in value and (value.isascii() or _SURROGATES.search(value) is None)
