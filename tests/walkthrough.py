"""Pages whose examples are run as they stand: the blocks of code of docs/NAME.md."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Walkthrough:
    """One page."""

    def __init__(self, name: str) -> None:
        self.path = DOCS / f"{name}.md"

    def blocks(self, language: str = "python") -> list[str]:
        return re.findall(rf"```{language}\n(.*?)```", self.path.read_text(encoding="utf-8"), flags=re.DOTALL)

    def run(self, block: int, space: dict) -> dict:
        """Run a block of Python in `space`, which then holds what it defines."""
        exec(compile(self.blocks()[block], f"{self.path}:{block}", "exec"), space)
        return space

    def run_tests(self, block: int) -> int:
        """Run the tests that a block defines, which take no argument; how many there are."""
        tests = [value for name, value in self.run(block, {"__name__": "page"}).items() if name.startswith("test_")]
        for test in tests:
            test()
        return len(tests)
