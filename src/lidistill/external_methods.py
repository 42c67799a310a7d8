"""Distillation methods from outside the package: the import path of the settings class, and plain values.

Only training imports the class. A student trained with the method can be loaded, scored and used without it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lidistill.configuration import plain, settings_from
from lidistill.distillation import METHODS, DistillationMethod, MethodConfig
from lidistill.distillation.method import Specs
from lidistill.settings import Settings, Text
from lidistill.types import InputError

SOURCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # module:Class


@dataclass(frozen=True)
class ExternalMethod(Settings):
    """The settings of a method whose MethodConfig class may not be installed here."""

    name: Text
    source: Text  # module:Class
    settings: dict[Text, Any]  # plain values; a missing key has the class's default

    @staticmethod
    def of(settings: MethodConfig) -> ExternalMethod:
        """Make one from the settings of a method; InputError if the name is that of a method of the package."""
        cls = type(settings)
        source = f"{cls.__module__}:{cls.__qualname__}"
        if cls.name in METHODS:
            raise InputError(
                f"{source} has the name {cls.name!r}, which is a method of lidistill; give it a name of its own"
            )
        return ExternalMethod(cls.name, source, plain(asdict(settings)))

    @staticmethod
    def from_dict(content: Mapping[str, Any], where: str) -> ExternalMethod:
        """Read what `to_dict` returned, without importing the class; InputError without a valid name and source."""
        rest = {key: value for key, value in content.items() if key not in ("name", "from")}
        name, source = content.get("name"), content.get("from")
        if not isinstance(name, str) or not isinstance(source, str) or not SOURCE.fullmatch(source):
            raise InputError(f"{where}: a method from outside has a name and a source, such as from: my_module:Config")
        return ExternalMethod(name, source, rest)

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping, in the form of `experiment.yaml`."""
        return {"name": self.name, "from": self.source, **self.settings}

    def load(self) -> MethodConfig:
        """Import the class and make its settings; InputError if the import fails or a setting is invalid."""
        return settings_from(settings_class(self.source), self.settings, f"{self.source}: {self.name}")

    def build(self, teacher_specs: Specs, student_specs: Specs) -> DistillationMethod:
        """Build the method, as MethodConfig.build does."""
        return self.load().build(teacher_specs, student_specs)


def settings_class(source: str) -> type[MethodConfig]:
    """Import the class `module:Class` from Python's path; InputError if it cannot be imported or is no MethodConfig."""
    if not SOURCE.fullmatch(source):
        raise InputError(
            f"method {source!r}: write a method from outside the package as module:Class, for example my_module:Config"
        )
    module, _, name = source.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise InputError(
            f"method {source}: {error}; install it, or put its folder on Python's path, for example PYTHONPATH=. "
            "before the command"
        ) from error
    except Exception as error:  # importing a module runs its code, which may raise anything
        raise InputError(
            f"method {source}: {module} cannot be imported ({type(error).__name__}: {error}); fix it first"
        ) from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, MethodConfig)):
        raise InputError(
            f"method {source}: {module} has no {name} that extends lidistill.distillation.MethodConfig; see "
            "docs/adding-a-method.md"
        )
    return found


def look_in_working_folder() -> None:
    """Add the working folder to Python's path, as `python -m` does.

    Called only for a module that the user names on the command line, never for one that a file names.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
