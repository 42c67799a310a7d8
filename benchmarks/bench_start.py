"""Time until a command answers: Python, `import torch`, and the commands that only print something, in turns.

    python benchmarks/bench_start.py

It prints the median of each in seconds, and its ratio to `python -c pass` and to `python -c "import torch"` of the same
turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

TURNS = 7
PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "lidistill --version": ["-m", "lidistill.cli", "--version"],
    "lidistill --help": ["-m", "lidistill.cli", "--help"],
    "lidistill methods": ["-m", "lidistill.cli", "methods"],
}


def main() -> None:
    spent: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(-1, TURNS):  # the first turn fills the caches of the file system
        for name, words in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            if turn >= 0:
                spent[name].append(time.perf_counter() - start)
    for name, times in spent.items():
        to_nothing, to_torch = (
            statistics.median(own / other for own, other in zip(times, spent[base], strict=True))
            for base in ("python -c pass", "import torch")
        )
        print(
            f"{name:20}  {statistics.median(times):6.2f} s  {to_nothing:6.1f} x python -c pass  {to_torch:6.2f} x "
            "import torch"
        )


if __name__ == "__main__":
    main()
