"""Reports from run folders: tables, curves and pictures on one page. Imports no model, detector or dataset.

A name is imported when it is first used: pictures need libraries that take long to import, and tables of text need none
of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "draw_bev": "render.bev_picture",
    "load_samples": "measures.samples",
    "save_samples": "measures.samples",
    "write_report": "render.page",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
