"""The settings of a method as a table: every key with its default and with what the method's own file says beside it."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

import yaml

from lidistill.configuration import plain
from lidistill.report.blocks import Table
from lidistill.types import Settings


@dataclass(frozen=True)
class MethodSetting:
    """One key, as it is written behind `methods.NAME.`."""

    key: str
    default: Any
    comment: str

    @staticmethod
    def shown(value: Any) -> str:
        """A value as an override would give it, floats to six digits."""
        if isinstance(value, float):
            return f"{value:.6g}"
        return yaml.safe_dump(plain(value), default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def settings_table(settings: type[Settings]) -> Table:
    """Key, default and comment of every setting."""
    rows = tuple((setting.key, MethodSetting.shown(setting.default), setting.comment) for setting in settings_of(settings))
    return Table(("Setting", "Default", "What it is"), rows, text_columns=3)


def settings_of(settings: type[Settings], prefix: str = "") -> Iterator[MethodSetting]:
    """Every setting of a settings dataclass, those of nested settings under `parent.child`."""
    said = comments_of(settings)
    for field in fields(settings):  # type: ignore[arg-type]
        default = _default(field)
        if isinstance(default, Settings):
            yield from settings_of(type(default), f"{prefix}{field.name}.")
        else:
            yield MethodSetting(prefix + field.name, default, said.get(field.name, ""))


def comments_of(settings: type[Settings]) -> dict[str, str]:
    """The comments at the ends of the lines that declare fields; where a class says nothing, that of the class it extends."""
    said: dict[str, str] = {}
    for owner in reversed([cls for cls in settings.__mro__ if is_dataclass(cls)]):
        source = inspect.getsource(owner)
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        declared = ast.parse(source).body[0]
        assert isinstance(declared, ast.ClassDef)
        for node in declared.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno in comments:
                said[node.target.id] = comments[node.end_lineno]
    return said


def _default(field: Field[Any]) -> Any:
    return field.default if field.default is not MISSING else field.default_factory() if field.default_factory is not MISSING else None
