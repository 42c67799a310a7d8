"""Write docs/results/README.md and the measured passages of other pages from the JSON files in docs/results.

    python benchmarks/results_page.py

No figure is typed by hand: a test fails if a page differs from what this file writes.
"""

from __future__ import annotations

from pathlib import Path

from bench_distilled_step import GOAL, LIMIT
from bench_distilled_step import ratio as step_ratio
from bench_pipeline import OVER_MMDETECTION3D
from goals import Goal, row
from passages import with_passages
from recorded import DOCS, RESULTS, duration, milliseconds, ratio_of, read, seconds, spread_of

HEAD = """# Results

Every figure was written by a script under `benchmarks/` and carries device, threads, seed and
commit; this page is made from those files by `python benchmarks/results_page.py`. Times are from a
shared machine: read the ratios rather than the seconds. Results on simulated streets that name no
version of the simulator are of version 2; later versions are calibrated on recorded frames, and scores of
different versions are not comparable. How they compare with recorded frames is told in
[simulator.md](../simulator.md).
"""


STEP = Goal(LIMIT, GOAL)
FIGURES = (
    "simulator",
    "pointdistiller",
    "kitti_metric",
    "ops",
    "voxels",
    "pipeline",
    "sparse",
    "processor",
    "norms",
    "second_step",
    "itkd",
    "rdd",
    "distilled_step",
)
# limits on the time relative to mmdetection3d
OVER_PEER = {
    "pointpillars train step": 0.5,
    "pointpillars predict": 0.6,
    "second train step": 0.6,
    "centerpoint-voxel train step": 0.6,
}


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Return the text of every page with measured figures: the page of results, and the pages with passages."""
    made = {path: with_passages(path.read_text(encoding="utf-8"), path.name) for path in sorted(DOCS.glob("*.md"))}
    return {
        RESULTS / "README.md": "\n".join([HEAD, demo(), detectors(), comparisons(), real_frames(), numbers()]),
        **made,
    }


def demo() -> str:
    results, where = read("demo")
    gain = results["gain of distilled over plain"]
    runs = results["runs"]
    any_run = next(iter(runs.values()))
    lines = [
        "## The demo: simulated streets",
        "",
        f"`make demo`{duration(results, ', {:.1f} minutes from nothing to the report')}. **Simulated data** "
        f"({any_run.get('dataset_version', 'simulator 2')}), {any_run['frames']} validation frames, KITTI metric, "
        f"AP R40 at the strict overlaps, seed {any_run['seed']}. {where}; trained at commit {any_run['commit']} on "
        f"{any_run['device']}.",
        "",
        "| run | Car 3D e / m / h | Pedestrian 3D e / m / h | Cyclist 3D e / m / h | mean 3D moderate | mean BEV "
        "moderate | parameters | MACs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        cells = [
            " / ".join(
                f"{run['values'][f'strict/3d/{kind}/R40/{level}']:.1f}" for level in ("easy", "moderate", "hard")
            )
            for kind in ("Car", "Pedestrian", "Cyclist")
        ]
        mean, bev = (run["values"][f"strict/{metric}/mean/R40/moderate"] for metric in ("3d", "bev"))
        lines.append(
            f"| {name} | {' | '.join(cells)} | **{mean:.1f}** | {bev:.1f} | {run['parameters']:,} | "
            f"{run['macs'] / 1e6:.0f} M |"
        )
    lines += [
        "",
        f"Distilled over plain: **{gain['gain']:+.1f} AP** (mean 3D moderate), 95 % paired bootstrap interval over "
        f"frames {gain['low']:+.1f} to {gain['high']:+.1f} "
        f"({gain['resamples']} resamples, one seed). The interval says nothing about other seeds.",
        "",
    ]
    return "\n".join(lines)


def detectors() -> str:
    results, where = read("detectors")
    lines = [
        "## Every detector: a short training on simulated streets",
        "",
        "`python benchmarks/bench_detectors.py`. **Simulated data**, KITTI metric, AP R40 at the strict overlaps on "
        "240 validation frames, one seed, teacher and "
        f"students on the same short schedule. {where}.",
        "",
        "| detector | run | steps | Car 3D moderate | Pedestrian | Cyclist | mean 3D moderate | mean BEV moderate | "
        "parameters | MACs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        for kind, values in found["scores"].items():
            cells = [f"{values[f'strict/3d/{label}/R40/moderate']:.1f}" for label in ("Car", "Pedestrian", "Cyclist")]
            mean, bev = (values[f"strict/{metric}/mean/R40/moderate"] for metric in ("3d", "bev"))
            size, macs = found["parameters"][kind], found["macs"][kind]
            lines.append(
                f"| {name} | {kind} | {found['steps']} | {' | '.join(cells)} | **{mean:.1f}** | {bev:.1f} | {size:,} "
                f"| {macs / 1e6:.0f} M |"
            )
    lines.append("")
    for name, found in results.items():
        low, high = found["interval_over_frames"]
        lines.append(
            f"* {name}: distilled over plain **{found['gain']:+.1f} AP**, 95 % paired interval over frames "
            f"{low:+.1f} to {high:+.1f}; "
            f"one seed, trained at commit {found['conditions']['commit']}."
        )
    lines += [
        "",
        "![Scores while training](detectors.svg)",
        "",
        "Points before the last are on 64 of the validation frames.",
        "",
    ]
    return "\n".join(lines)


def comparisons() -> str:
    """Return the tables that `lidistill compare` wrote."""
    parts = [
        "## Methods side by side",
        "",
        "Made by `lidistill compare` from the recipes of the same names, through `python "
        "benchmarks/bench_comparisons.py`. A step's time stands here only where its row "
        "took turns with the plain student.",
        "",
    ]
    for path in sorted(
        RESULTS.glob("comparison_*.md"), key=lambda path: (path.stem != "comparison_methods", path.stem)
    ):
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
    found = ", ".join(
        f"{level} {values[f'strict/3d/Car/R40/{level}']:.1f} of {most:.1f}"
        for level, most in results["reachable"].items()
    )
    return "\n".join(
        [
            "## Real KITTI frames",
            "",
            f"{results['detector']}, trained for {results['steps']} steps on {results['frames']} real frames and "
            "scored on the same frames, as a check of the whole line: "
            f"3D AP R40 at 0.7 for Car: {found} that the labels themselves would reach (R40 leaves recall points "
            f"empty where there are fewer objects). Seed {results['seed']}. {where}.",
            "",
        ]
    )


def numbers() -> str:
    lines = [
        "## Numbers",
        "",
        "Medians over repetitions that took turns; in brackets the smallest and the largest, where they were kept. A "
        "goal is reached or missed by the figure as it "
        "is printed.",
        "",
        "| what | asked | measured | reached | file |",
        "|---|---|---|---|---|",
        *simulator_rows(),
        *pointdistiller_rows(),
        *kitti_rows(),
        *ops_rows(),
        *voxel_rows(),
        *pipeline_rows(),
        *sparse_rows(),
        *processor_rows(),
        *norm_rows(),
        *second_rows(),
        *itkd_rows(),
        *rdd_rows(),
        *step_rows(),
        "",
    ]
    places: dict[str, list[str]] = {}
    for name in FIGURES:
        places.setdefault(read(name)[1], []).append(f"`{name}.json`")
    lines += ["Where they were taken:", "", *(f"* {', '.join(names)}: {where}." for where, names in places.items()), ""]
    return "\n".join(lines)


def simulator_rows() -> list[str]:
    kitti = read("simulator")[0]["sensors"]["kitti"]
    median, best, worst = (1 / kitti[key] if key in kitti else None for key in ("median_s", "min_s", "max_s"))
    text = f"{median:.0f} frames/s" + (f", best {best:.0f}" if worst is None else f" ({worst:.0f} to {best:.0f})")
    goal = Goal(15, 30, "frames/s", decimals=0, at_least=True)
    return [row("simulator, front 90° of the 64-beam preset, one core", text, "simulator", goal, median)]


def pointdistiller_rows() -> list[str]:
    results = read("pointdistiller")[0]
    spread, hard = results["spread weights (4)"], results["released weights (0.01)"]
    ratios = [ratio_of(part["times"], "ours") for part in (spread, hard)]
    text = (
        f"{spread_of(ratios[0])} (spread weights), {spread_of(ratios[1])} (released weights); with the neighbour "
        "search "
    )
    text += f"{spread['ratio_with_search']:.2f}, {hard['ratio_with_search']:.2f}"
    what = "PointDistiller loss, 16,000 pillars, N 6000, K 128, over the straightforward form"
    ours, plain = (spread["memory_bytes"][form] / 1e6 for form in ("ours", "straightforward"))
    error = spread["relative_error"]["ours_value"]
    return [
        row(what, text, "pointdistiller", Goal(0.5, 0.1), max(ratio["ratio"] for ratio in ratios)),
        row(
            "its extra memory",
            f"{ours:.0f} MB (straightforward {plain:.0f} MB)",
            "pointdistiller",
            Goal(600, unit="MB", decimals=0),
            ours,
        ),
        row("its value against double precision", f"{error:.1e}", "pointdistiller", Goal(1e-5, decimals=7), error),
    ]


def kitti_rows() -> list[str]:
    results = read("kitti_metric")[0]
    size, whole = results["size"], results["whole"]
    boxes, rows = (whole[f"from {source} to scores"] for source in ("LiDAR boxes", "camera rows"))
    what = f"KITTI metric, {size['frames']:,} frames, {size['detections']:,} detections, one thread"
    text = f"{seconds(boxes)} from LiDAR boxes, {seconds(rows)} from camera rows"
    return [row(what, text, "kitti_metric", Goal(30, 10, "s", decimals=1), boxes["median_s"])]


def ops_rows() -> list[str]:
    results = read("ops")[0]
    overlap = results["overlap"]
    times, error = overlap["times"]["overlap_bev"], overlap["error_float32"]
    shapely = overlap["times"]["shapely, tree and vectorised"]["median_s"] / times["median_s"]
    suppression = [case["times"]["nms_rotated"]["median_s"] * 1e3 for case in results["nms"].values()]
    limit = Goal(100, unit="ms", decimals=0)
    return [
        row(
            "rotated overlap 1000 × 1000",
            f"{milliseconds(times)}; {shapely:.0f} times as fast as shapely",
            "ops",
            limit,
            times["median_s"] * 1e3,
        ),
        row("its largest error in float32", f"{error:.0e}", "ops", Goal(1e-5, decimals=7), error),
        row(
            "rotated suppression of 9,000 boxes",
            f"{min(suppression):.0f} to {max(suppression):.0f} ms over the cases",
            "ops",
            Goal(1000, unit="ms", decimals=0),
            max(suppression),
        ),
    ]


def voxel_rows() -> list[str]:
    rows = []
    for title, found in read("voxels")[0].items():
        if isinstance(found, dict) and "times" in found:
            ratio = ratio_of(found["times"], "lidistill", "spconv")
            what = (
                f"hard voxels, {title} ({found['points']:,} points, {found['voxels']:,} voxels), one thread, over "
                "spconv's"
            )
            text = f"{spread_of(ratio)}; {found['times']['lidistill']['median_s'] * 1e3:.1f} ms"
            rows.append(row(what, text, "voxels", Goal(1.0), ratio["ratio"]))
    return rows


def pipeline_rows() -> list[str]:
    results = read("pipeline")[0]
    rows = []
    for title, over_peer in OVER_MMDETECTION3D.items():
        ratio = ratio_of(results[title]["times"], "lidistill", "before")
        estimate = ratio["ratio"] * over_peer
        what = (
            f"a training frame from a whole scan, objects pasted, {title}, over the code of commit {results['before']}"
        )
        text = f"{spread_of(ratio)}; {results[title]['times']['lidistill']['median_s'] * 1e3:.1f} ms"
        rows.append(row(what, text, "pipeline"))
        what = (
            f"the same over mmdetection3d: an estimate, as that commit took {over_peer} of its time on another machine"
        )
        rows.append(row(what, f"about {estimate:.2f}", "pipeline", Goal(0.6), estimate))
    return rows


def sparse_rows() -> list[str]:
    results = read("sparse")[0]
    rows = []
    for threads in (1, 2):
        found = results.get(f"threads_{threads}")
        if found is None:
            continue
        step, forward = (
            ratio_of(found["step"], "lidistill", "spconv"),
            ratio_of(found["forward"], "lidistill", "spconv"),
        )
        what = (
            f"SECOND's sparse trunk, {found['voxels']:,} voxels, forward and backward, {threads} "
            f"thread{'s' if threads > 1 else ''}, over spconv's CPU build"
        )
        text = f"{spread_of(step)} (forward alone {spread_of(forward)}); {milliseconds(found['step']['lidistill'])}"
        rows.append(row(what, text, "sparse", *((Goal(0.8), step["ratio"]) if threads == 1 else ())))
    memory = results["threads_1"]["peak_bytes"]
    share = memory["lidistill"] / memory["spconv"]
    return [*rows, row("its memory over spconv's", f"{share:.2f}", "sparse", Goal(1.5), share)]


def processor_rows() -> list[str]:
    rows = []
    for title, found in read("processor")[0]["against"].items():
        detector, _, work = title.split(" ", 2)
        ratio = {
            "ratio": found["ratio"]["median"],
            "ratio_low": found["ratio"]["low"],
            "ratio_high": found["ratio"]["high"],
        }
        now, floor = found["now_ms"]["median"], found["floor_ms"]["median"]
        text = f"{spread_of(ratio)}; {now:.0f} ms, of which dense 3 × 3 convolutions {floor:.0f}"
        rows.append(
            row(f"{detector}, {work}, one frame, one thread, over the code of commit ed3852e", text, "processor")
        )
        estimate, asked = found["estimated_ratio_to_mmdetection3d"], OVER_PEER.get(f"{detector} {work}")
        what = "the same over mmdetection3d: an estimate from that commit's ratio to it on another machine"
        rows.append(
            row(what, f"about {estimate:.2f}", "processor", *(() if asked is None else (Goal(asked), estimate)))
        )
    return rows


def norm_rows() -> list[str]:
    rows = []
    for title, found in read("norms")[0].items():
        if isinstance(found, dict):
            ratio = ratio_of(found["times"], "exact statistics")
            what = (
                f"PointPillars' training step with exact BatchNorm statistics, {title}, one thread, over the same "
                "with torch's layers"
            )
            rows.append(row(what, spread_of(ratio), "norms", Goal(1.03), ratio["ratio"]))
    return rows


def second_rows() -> list[str]:
    results = read("second_step")[0]
    stages = ", ".join(f"{name} {times['median_s'] * 1e3:.0f} ms" for name, times in results["stages"].items())
    ratio = ratio_of(results["step"], "whole step", "dense part")
    return [
        row(
            "SECOND's training step at KITTI size, batch 1, over its dense part alone",
            f"{spread_of(ratio)}: {stages}",
            "second_step",
        )
    ]


def itkd_rows() -> list[str]:
    results = read("itkd")[0]
    ratios = [ratio_of(results[f"batch {batch}"]["times"], "ours") for batch in (1, 2)]
    what = "itKD's autoencoder branch at 234 × 234, 384 and 96 channels, over the straightforward form"
    text = f"{spread_of(ratios[0])}, batch of two {spread_of(ratios[1])}"
    return [row(what, text, "itkd", Goal(0.5), max(ratio["ratio"] for ratio in ratios))]


def rdd_rows() -> list[str]:
    results = read("rdd")[0]
    forms = [spread_of(ratio_of(results["times"], form)) for form in ("ours", "ours, align_on=regions")]
    what = (
        f"RDD's feature loss, {results['pairs']} pairs, batch of two, {results['threads']} threads, over the "
        "straightforward form"
    )
    return [row(what, f"{forms[0]}; normalised by the regions alone {forms[1]}", "rdd")]


def step_rows() -> list[str]:
    rows = []
    for name, found in sorted(read("distilled_step")[0].items()):
        if isinstance(found, dict):
            taken = step_ratio(found)
            what = f"distilled step ÷ (plain step + teacher forward), KITTI size, batch 2: {name}"
            rows.append(
                row(
                    what,
                    f"{spread_of(taken)}, {len(found['seconds']['parts']['processor'])} turns",
                    "distilled_step",
                    STEP,
                    taken["ratio"],
                )
            )
    return rows


if __name__ == "__main__":
    main()
