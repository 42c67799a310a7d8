"""Average precision with bf16: the demo's plain 4x student, trained in single precision and under bf16 autocast.

Several seeds are trained, and each run is scored in the precision of its training. Finished runs in `--runs` are kept
and interrupted ones are resumed. `bench_processor.py --half` measures the speed of both.

    python benchmarks/bench_half_precision.py [--seeds 3] [--steps 400] [--runs runs/half_precision]
        [--out docs/results/half_precision.json]
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import record

from lidistill import jobs
from lidistill.detectors import WidthRule
from lidistill.jobs.evaluation import evaluate
from lidistill.run_folder import RunFolder, read_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=Path, default=Path("runs/half_precision"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: dict[str, list[float]] = {"32": [], "bf16": []}
    conditions: dict[str, Any] = {}
    for seed in range(arguments.seeds):
        for precision, scores in rows.items():
            folder = RunFolder(arguments.runs / f"{precision}-seed{seed}")
            overrides = [f"training.steps={arguments.steps}", f"training.precision={precision}", "training.workers=0"]
            full = jobs.supervised(
                "pointpillars", data=f"simulated:{arguments.runs / 'data'}", seed=seed, overrides=overrides
            )
            jobs.train(
                replace(full, role="plain", detector=full.detector.thinner(WidthRule.for_compression(4))),
                folder.path,
                resume=True,
                device="cpu",
            )
            evaluate(folder.path, device="cpu", precision=precision)
            found = read_json(folder.scores)
            conditions = {
                key: found[key]
                for key in ("dataset", "simulated", "split", "frames", "protocol", "main", "overlap", "device")
            }
            scores.append(found["values"][found["main"]])
            print(f"seed {seed} {precision:5s} {found['main']} {scores[-1]:.1f}", flush=True)
    gaps = [half - single for single, half in zip(rows["32"], rows["bf16"], strict=True)]
    spread = statistics.stdev(rows["32"]) if arguments.seeds > 1 else None
    print(
        f"bf16 over single precision, seed by seed: {', '.join(f'{gap:+.1f}' for gap in gaps)}; mean "
        f"{statistics.mean(gaps):+.1f}"
    )
    if spread is not None:
        print(f"standard deviation over the seeds of single precision: {spread:.1f}")
    if arguments.out:
        content = {
            "conditions": conditions,
            "steps": arguments.steps,
            "seeds": arguments.seeds,
            "scores": rows,
            "gaps": gaps,
            "deviation": spread,
        }
        record(arguments.out, "half_precision", content)


if __name__ == "__main__":
    main()
