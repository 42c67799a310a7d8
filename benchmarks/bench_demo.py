"""Run the demo if it has not been run, and record its duration, its scores and the gain of distillation.

    python benchmarks/bench_demo.py [--folder runs/demo] [--seed 0] [--busy] [--out docs/results/demo.json]

The duration is the time between the first file, the simulator's manifest, and the last one, the report's page. With
--busy it is not recorded: the machine did other work meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measure import record

from lidistill import jobs
from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.score_names import MAIN
from lidistill.evaluation.intervals import paired_bootstrap
from lidistill.run_folder import RunFolder, read_json

RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--busy", action="store_true", help="do not record the duration")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    page = arguments.folder / "report" / "report.html"
    if not page.is_file():
        jobs.demo(arguments.folder, seed=arguments.seed)
    manifest = arguments.folder / "data" / "simulated.json"
    minutes = (page.stat().st_mtime - manifest.stat().st_mtime) / 60
    rows = {}
    for name in ("teacher", "plain", "distilled"):
        folder = RunFolder(arguments.folder / name)
        scores, cost = read_json(folder.scores), read_json(folder.profile)
        kept = {
            key: value
            for key, value in scores["values"].items()
            if key.startswith(("strict/3d", "strict/bev")) and "/R40/" in key
        }
        described = {
            key: scores[key]
            for key in (
                "dataset",
                "dataset_version",
                "simulated",
                "split",
                "frames",
                "protocol",
                "overlap",
                "main",
                "seed",
                "commit",
                "device",
            )
        }
        trained_s = folder.read_log()[-1]["time_s"]
        rows[name] = {**described, "parameters": cost["parameters"], "macs": cost["macs"], "trained_s": trained_s}
        rows[name]["values"] = kept
        print(
            f"{name:10s} {scores['main']} {scores['values'][scores['main']]:.1f}  {cost['parameters']:,} parameters  "
            f"trained in {trained_s:.0f} s"
        )
    plain, distilled = (
        FrameMatches.load(RunFolder(arguments.folder / name).matches) for name in ("plain", "distilled")
    )
    gain = paired_bootstrap(plain, distilled, MAIN, resamples=RESAMPLES)
    print(
        f"gain {gain.value:+.1f}, 95% interval {gain.low:+.1f} to {gain.high:+.1f}; {minutes:.1f} minutes from "
        "nothing to the report"
    )
    if arguments.out:
        interval = {"gain": gain.value, "low": gain.low, "high": gain.high, "resamples": RESAMPLES, "level": gain.level}
        timing = read_json(arguments.folder / "report" / "timing.json")
        content = {
            "simulated": True,
            "minutes": None if arguments.busy else round(minutes, 2),
            "gain of distilled over plain": interval,
            "runs": rows,
            "timing": timing,
        }
        record(arguments.out, "demo", content)


if __name__ == "__main__":
    main()
