"""The settings of a method as a table: each key, its default, and its comment in the method's file."""

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
from lidistill.report.page_blocks import Table
from lidistill.types import Settings


@dataclass(frozen=True)
class MethodSetting:
    """One setting of a method; overrides write its key after `methods.NAME.`."""

    key: str
    default: Any
    comment: str

    @staticmethod
    def shown(value: Any) -> str:
        """Format a value as an override writes it, floats with six digits."""
        if isinstance(value, float):
            return f"{value:.6g}"
        return yaml.safe_dump(plain(value), default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def settings_table(settings: type[Settings]) -> Table:
    """Make a table with the key, default and comment of every setting."""
    rows = tuple(
        (setting.key, MethodSetting.shown(setting.default), setting.comment) for setting in settings_of(settings)
    )
    return Table(("Setting", "Default", "What it is"), rows, text_columns=3)


def settings_of(settings: type[Settings], prefix: str = "") -> Iterator[MethodSetting]:
    """Yield every setting of a settings dataclass; nested settings have keys such as `parent.child`."""
    found = comments_of(settings)
    for field in fields(settings):  # type: ignore[arg-type]
        default = _default(field)
        if isinstance(default, Settings):
            yield from settings_of(type(default), f"{prefix}{field.name}.")
        else:
            yield MethodSetting(prefix + field.name, default, found.get(field.name, ""))


def comments_of(settings: type[Settings]) -> dict[str, str]:
    """Return the comment of each field: at the end of its line, or in the lines directly above it.

    A field without a comment in a class has the comment of its base class.
    """
    found: dict[str, str] = {}
    for owner in reversed([cls for cls in settings.__mro__ if is_dataclass(cls)]):
        source = inspect.getsource(owner)
        lines = source.splitlines()
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        declared = ast.parse(source).body[0]
        assert isinstance(declared, ast.ClassDef)
        for node in declared.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                above = node.lineno - 1
                while above in comments and lines[above - 1].lstrip().startswith("#"):
                    above -= 1
                written = [comments[line] for line in range(above + 1, node.lineno)]
                written += [comments[node.end_lineno]] if node.end_lineno in comments else []
                if written:
                    found[node.target.id] = " ".join(written)
    return found


def _default(field: Field[Any]) -> Any:
    return (
        field.default
        if field.default is not MISSING
        else field.default_factory()
        if field.default_factory is not MISSING
        else None
    )
