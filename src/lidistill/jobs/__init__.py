"""The jobs behind the commands, one function each. Python and the command line call the same functions.

A job is imported when it is first used: training takes seconds to import, and most commands do not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "demo": "demonstration",
    "simulate": "simulation",
    "import_run": "import_checkpoint",
    "supervised": "setup",
    "plain_student": "setup",
    "distilled": "setup",
    "fine_tuned": "fine_tuning",
    "resumed": "resume_settings",
    "train": "training",
    "compare": "comparison",
    "Comparison": "comparison",
    "evaluate": "evaluation",
    "evaluate_predictions": "evaluation",
    "predict": "prediction",
    "report": "reporting",
    "load_run": "trained_runs",
    "TrainedRun": "trained_runs",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
