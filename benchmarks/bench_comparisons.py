"""Run recipes of comparisons on the simulator and publish their tables.

Finished students in `--runs` are kept and interrupted ones are resumed. All recipes have the same teacher.

    python benchmarks/bench_comparisons.py methods pointdistiller-parts [--teacher runs/teacher] [--seeds 3]
        [--publish] [training.steps=400]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lidistill import jobs
from lidistill.files import write_text
from lidistill.jobs.comparison import Comparison, compare
from lidistill.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recipes", nargs="+", help="names of files in recipes/, without .yaml; then dotted overrides of every student"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        default=Path("runs/teacher"),
        help="run folder; trained with the demo's settings if it does not exist",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--publish", action="store_true", help="copy the tables to docs/results")
    arguments = parser.parse_intermixed_args()
    names = [text for text in arguments.recipes if "=" not in text]
    overrides = [text for text in arguments.recipes if "=" in text]
    if arguments.processes > 1:
        torch.set_num_threads(1)
    if not RunFolder(arguments.teacher).scores.is_file():
        jobs.train(
            jobs.supervised("pointpillars", data="simulated", overrides=["training.steps=1200"]),
            arguments.teacher,
            resume=True,
        )
    for name in names:
        plan = Comparison.read(ROOT / "recipes" / f"{name}.yaml").changed(
            teacher=arguments.teacher, seeds=arguments.seeds, overrides=overrides
        )
        table = compare(plan, arguments.runs / name, processes=arguments.processes)
        print(table.read_text(encoding="utf-8"))
        if arguments.publish:
            for path in (table, table.with_suffix(".json")):
                write_text(
                    RESULTS / f"comparison_{name.replace('-', '_')}{path.suffix}", path.read_text(encoding="utf-8")
                )


if __name__ == "__main__":
    main()
