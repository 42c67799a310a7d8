"""Write docs/results/README.md from the JSON files beside it, so that no figure is typed by hand.

python benchmarks/results_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"

HEAD = """# Results

Every figure was written by a script under `benchmarks/` and carries device, threads, seed and commit; this page is made from those files by
`python benchmarks/results_page.py`. Times are from a shared machine: read the ratios rather than the seconds.
"""


def main() -> None:
    parts = [HEAD, demo(), detectors(), comparisons(), real_frames(), numbers()]
    (RESULTS / "README.md").write_text("\n".join(parts), encoding="utf-8")


def read(name: str) -> tuple[dict[str, Any], str]:
    """The results of a benchmark, and one line on where they were taken."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    where = content["environment"]
    return content["results"], f"{where['device']}, {where['threads']} threads, torch {where['torch']}, commit {where['commit']}"


def demo() -> str:
    results, where = read("demo")
    gain = results["gain of distilled over plain"]
    runs = results["runs"]
    any_run = next(iter(runs.values()))
    lines = [
        "## The demo: simulated streets",
        "",
        f"`make demo`, {results['minutes']:.1f} minutes from nothing to the report. **Simulated data**, {any_run['frames']} validation frames, KITTI metric, "
        f"AP R40 at the strict overlaps, seed {any_run['seed']}. {where}; trained at commit {any_run['commit']} on {any_run['device']}.",
        "",
        "| run | Car 3D e / m / h | Pedestrian 3D e / m / h | Cyclist 3D e / m / h | mean 3D moderate | mean BEV moderate | parameters | MACs | latency p50 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        cells = [
            " / ".join(f"{run['values'][f'strict/3d/{kind}/R40/{level}']:.1f}" for level in ("easy", "moderate", "hard"))
            for kind in ("Car", "Pedestrian", "Cyclist")
        ]
        mean, bev = (run["values"][f"strict/{metric}/mean/R40/moderate"] for metric in ("3d", "bev"))
        latency = f"{run['latency_ms']['total']['p50']:.1f} ms"
        lines.append(f"| {name} | {' | '.join(cells)} | **{mean:.1f}** | {bev:.1f} | {run['parameters']:,} | {run['macs'] / 1e6:.0f} M | {latency} |")
    lines += [
        "",
        f"Distilled over plain: **{gain['gain']:+.1f} AP** (mean 3D moderate), 95 % paired bootstrap interval over frames {gain['low']:+.1f} to {gain['high']:+.1f} "
        f"({gain['resamples']} resamples, one seed). The interval says nothing about other seeds.",
        "",
    ]
    return "\n".join(lines)


def detectors() -> str:
    results, where = read("detectors")
    lines = [
        "## Every detector: a short training on simulated streets",
        "",
        "`python benchmarks/bench_detectors.py`. **Simulated data**, KITTI metric, AP R40 at the strict overlaps on 240 validation frames, one seed, teacher and "
        f"students on the same short schedule. {where}.",
        "",
        "| detector | run | steps | Car 3D moderate | Pedestrian | Cyclist | mean 3D moderate | mean BEV moderate | parameters | MACs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        for kind, values in found["scores"].items():
            cells = [f"{values[f'strict/3d/{label}/R40/moderate']:.1f}" for label in ("Car", "Pedestrian", "Cyclist")]
            mean, bev = (values[f"strict/{metric}/mean/R40/moderate"] for metric in ("3d", "bev"))
            size, macs = found["parameters"][kind], found["macs"][kind]
            lines.append(f"| {name} | {kind} | {found['steps']} | {' | '.join(cells)} | **{mean:.1f}** | {bev:.1f} | {size:,} | {macs / 1e6:.0f} M |")
    lines.append("")
    for name, found in results.items():
        low, high = found["interval_over_frames"]
        lines.append(
            f"* {name}: distilled over plain **{found['gain']:+.1f} AP**, 95 % paired interval over frames {low:+.1f} to {high:+.1f}; "
            f"one seed, trained at commit {found['conditions']['commit']}."
        )
    lines += ["", "![Scores while training](detectors.svg)", "", "Points before the last are on 64 of the validation frames.", ""]
    return "\n".join(lines)


def comparisons() -> str:
    """The tables of `lidistill compare`, as it wrote them."""
    parts = [
        "## Methods side by side",
        "",
        "Made by `lidistill compare` from the recipes of the same names, through `python benchmarks/bench_comparisons.py`.",
        "",
    ]
    for path in sorted(RESULTS.glob("comparison_*.md"), key=lambda path: (path.stem != "comparison_methods", path.stem)):
        title = path.stem.removeprefix("comparison_").replace("_", "-")
        text = path.read_text(encoding="utf-8").partition("\n")[2].strip()
        parts += [f"### {title}", "", text, ""]
        notes = path.with_suffix(".notes.txt")
        if notes.is_file():
            parts += [notes.read_text(encoding="utf-8").strip(), ""]
    return "\n".join(parts)


def real_frames() -> str:
    results, where = read("real_frames")
    values = results["values"]
    found = ", ".join(f"{level} {values[f'strict/3d/Car/R40/{level}']:.1f} of {most:.1f}" for level, most in results["reachable"].items())
    return "\n".join(
        [
            "## Real KITTI frames",
            "",
            f"{results['detector']}, trained for {results['steps']} steps on {results['frames']} real frames and scored on the same frames, as a check of the whole line: "
            f"3D AP R40 at 0.7 for Car: {found} that the labels themselves would reach (R40 leaves recall points empty where there are fewer objects). Seed {results['seed']}. {where}.",
            "",
        ]
    )


def numbers() -> str:
    kitti, kitti_where = read("kitti_metric")
    ops, _ = read("ops")
    simulator, _ = read("simulator")
    graphs, graphs_where = read("pointdistiller")
    steps, steps_where = read("distilled_step")
    spread, hard = graphs["spread weights (4)"], graphs["released weights (0.01)"]
    overlap = ops["overlap"]
    suppression = [case["times"]["nms_rotated"]["min_s"] * 1e3 for case in ops["nms"].values()]
    lines = [
        "## Numbers",
        "",
        "| what | asked | measured | file |",
        "|---|---|---|---|",
        f"| simulator, front 90° of the 64-beam preset, one core | ≥ 15 frames/s, goal 30 | median {simulator['sensors']['kitti']['frames_per_second_median']:.0f}, "
        f"best {simulator['sensors']['kitti']['frames_per_second_best']:.0f} frames/s | `simulator.json` |",
        f"| PointDistiller loss, 16,000 pillars, N 6000, K 128, over the straightforward form | ≤ 0.5, goal 0.1 | {spread['ratio']:.2f} (spread weights), "
        f"{hard['ratio']:.2f} (released weights); with the neighbour search {spread['ratio_with_search']:.2f}, {hard['ratio_with_search']:.2f} | `pointdistiller.json` |",
        f"| its extra memory | < 600 MB | {spread['memory_bytes']['ours'] / 1e6:.0f} MB (straightforward {spread['memory_bytes']['straightforward'] / 1e6:.0f} MB) | |",
        f"| its value against double precision | 1e-5 | {spread['relative_error']['ours_value']:.1e} | |",
        f"| KITTI metric, {kitti['size']['frames']:,} frames, {kitti['size']['detections']:,} detections, one thread | ≤ 30 s, goal 10 | "
        f"{kitti['whole']['from LiDAR boxes to scores']['median_s']:.1f} s from LiDAR boxes, {kitti['whole']['from camera rows to scores']['median_s']:.1f} s from camera rows "
        f"| `kitti_metric.json` |",
        f"| rotated overlap 1000 × 1000 | ≤ 100 ms, 1e-5 | {overlap['times']['overlap_bev']['median_s'] * 1e3:.0f} ms, error {overlap['error_float32']:.0e}; "
        f"{overlap['times']['shapely, tree and vectorised']['median_s'] / overlap['times']['overlap_bev']['median_s']:.0f} times as fast as shapely | `ops.json` |",
        f"| rotated suppression of 9,000 boxes | ≤ 1 s | {min(suppression):.0f} to {max(suppression):.0f} ms | `ops.json` |",
    ]
    sparse, sparse_where = read("sparse")
    step, step_where = read("second_step")
    coder, coder_where = read("itkd")
    for threads in (1, 2):
        if found := sparse.get(f"threads_{threads}"):
            ratios = found["ratio_to_spconv"]
            lines.append(
                f"| SECOND's sparse trunk, {found['voxels']:,} voxels, forward and backward, {threads} thread{'s' if threads > 1 else ''}, over spconv's CPU build | "
                f"{'≤ 1.2, goal 1.0' if threads == 1 else 'faster than one thread'} | {ratios['sum']:.2f} (forward {ratios['forward']:.2f}); "
                f"{found['step']['lidistill']['min_s'] * 1e3:.0f} ms | `sparse.json` |"
            )
    memory = sparse["threads_1"]["peak_bytes"]
    share = memory["lidistill"] / memory["spconv"]
    lines.append(f"| its memory over spconv's | ≤ 1.5 | {share:.2f} | |")
    stages = ", ".join(f"{name} {times['min_s'] * 1e3:.0f} ms" for name, times in step["stages"].items())
    lines.append(
        f"| SECOND's training step at KITTI size, batch 1, over its dense part alone | | {step['times_the_dense_part']['min_s']:.2f}: {stages} | `second_step.json` |"
    )
    lines.append(
        f"| itKD's autoencoder branch at 234 × 234, 384 and 96 channels, over the straightforward form | ≤ 0.5 | {coder['batch 1']['ratio']:.2f}, "
        f"batch of two {coder['batch 2']['ratio']:.2f} | `itkd.json` |"
    )
    lines += [
        f"| distilled step ÷ (plain step + teacher forward), KITTI size, batch 2: {name} | ≤ 1.4, goal 1.25 | {found['ratio_min']:.2f} | `distilled_step.json` |"
        for name, found in sorted(steps.items())
        if isinstance(found, dict) and "ratio_min" in found
    ]
    lines += ["", f"Sparse: {sparse_where}. SECOND: {step_where}. itKD: {coder_where}."]
    lines += ["", f"Metric, operators, simulator: {kitti_where}. PointDistiller: {graphs_where}. Steps: {steps_where}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
