"""Passages of the docs that state measured figures.

They stand between two comments, and their text is made from the files in docs/results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

from bench_distilled_step import ratio as step_ratio
from recorded import duration, ratio_of, read, spread_of

PLACE = re.compile(r"(<!-- measured: ([a-z_]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
MIB = 2**20
WIDTH = 120
NEW_LINE = "\n"
# column of a table -> score of Car
CAR_SCORES = {
    column: f"{score}/Car/R40/moderate"
    for column, score in {"BEV 0.7": "strict/bev", "3D 0.5": "loose/3d", "3D 0.7": "strict/3d"}.items()
}


def with_passages(text: str, page: str) -> str:
    """Return the text of a page with every measured passage updated."""

    def written(found: re.Match[str]) -> str:
        if found[2] not in PASSAGES:
            raise KeyError(f"{page}: no passage is called {found[2]!r}; there are {', '.join(PASSAGES)}")
        passage = PASSAGES[found[2]]()
        # A table keeps its lines; prose is wrapped.
        return f"{found[1]}{passage if NEW_LINE in passage else fill(passage, WIDTH)}\n{found[3]}"

    return PLACE.sub(written, text)


def pointdistiller() -> str:
    results = read("pointdistiller")[0]
    spread, hard = results["spread weights (4)"], results["released weights (0.01)"]
    ratios = sorted(ratio_of(part["times"], "ours")["ratio"] for part in (spread, hard))
    memory, error = spread["memory_bytes"], spread["relative_error"]["ours_value"]
    ours, plain = (memory[form] / MIB for form in ("ours", "straightforward"))
    return (
        f"For {results['pillars']:,} pillars, N {results['graphs']}, K {results['neighbours']}, 64 and 32 to 32 "
        "channels, forward and backward on "
        f"one CPU thread take {ratios[0]:.2f} to {ratios[1]:.2f} of the time of the straightforward form and "
        f"{ours:.0f} MiB instead of "
        f"{plain:.0f} MiB, with the same value to {error:.0e} (`docs/results/pointdistiller.json`)."
    )


def itkd() -> str:
    results = read("itkd")[0]
    one, two = (results[f"batch {batch}"] for batch in (1, 2))
    teacher, student = results["channels"]
    memory = one["memory_bytes"]
    ratios = [ratio_of(part["times"], "ours")["ratio"] for part in (one, two)]
    return (
        f"For {results['cells']} x {results['cells']} cells, {teacher} channels against {student}, forward and "
        "backward on one CPU thread take "
        f"{ratios[0]:.2f} of the time of the straightforward form ({ratios[1]:.2f} for a batch of two) and "
        f"{memory['ours'] / MIB:.0f} MiB instead of "
        f"{memory['straightforward'] / MIB:.0f} MiB for a batch of one, with the same values "
        "(`docs/results/itkd.json`)."
    )


def fitnets() -> str:
    taken = step_ratio(read("distilled_step")[0]["fitnets"])
    return (
        "At KITTI's size (192 to 384 channels, 248 x 216 cells, two frames) a distilled step takes "
        f"{spread_of(taken)} times a plain step plus the "
        "teacher's forward pass on one CPU thread. The other methods' steps are in the "
        "[results](results/README.md#numbers)."
    )


def demo() -> str:
    within = duration(read("demo")[0], " in {:.1f} minutes on two cores, including simulation and scoring")
    return f"The demo trains three networks{within}; their scores are in the [results](results/README.md)."


def cache_sizes() -> str:
    results = read("teacher_cache")[0]
    heads, neck, pillars = (
        results[name]["bytes_per_frame"]["float32"] / 1e6 for name in ("logits", "fitnets", "pointdistiller")
    )
    return (
        f"At the demo's size a frame takes {heads:.1f} MB for heads (`logits`), {neck:.1f} MB for the neck "
        f"(`fitnets`) and {pillars:.1f} MB for "
        "pillars (`pointdistiller`)."
    )


def cache_times() -> str:
    results = read("teacher_cache")[0]
    ratios = {
        name: ratio_of(results[name]["times"], f"{name}, cached teacher, float32", f"{name}, running teacher")
        for name in ("logits", "fitnets", "pointdistiller")
    }
    lines = [
        "| method | cached ÷ running |",
        "|---|---:|",
        *(f"| `{name}` | {spread_of(ratio)} |" for name, ratio in ratios.items()),
    ]
    floor = ratio_of(results["logits"]["times"], "plain student", "logits, running teacher")["ratio"]
    return "\n".join([*lines, "", f"The plain student takes {floor:.2f} of a step with `logits`, which is the floor."])


def simulator() -> str:
    results = read("simulator")[0]
    found = results["sensors"]["kitti"]
    return (
        f"**Speed.** {1 / found['median_s']:.0f} frames a second (median) of the preset `kitti` on one core, measured "
        f"on version {results.get('simulator_version', 2)} (`docs/results/simulator.json`)."
    )


def simulator_statistics() -> str:
    results, before = read("simulator_statistics")[0], read("simulator_statistics_2")[0]["statistics"]
    found = {
        name: (before.get(name, {}).get("distance"), row["distance"], row["distance of recorded train and val"])
        for name, row in results["statistics"].items()
    }
    known = {name: distances for name, distances in found.items() if None not in distances}
    rows = []
    for name, distances in known.items():
        samples = (summary_of(results["statistics"][name][kind]) for kind in ("recorded", "simulated"))
        rows.append(f"| {name} | {' | '.join(samples)} | {' | '.join(f'{value:.2f}' for value in distances)} |")
    means = (sum(column) / len(known) for column in zip(*known.values(), strict=True))
    head = (
        f"| statistic | {results['recorded']}: median (16 % to 84 %) | simulated | version 2 | "
        f"version {results['simulator_version']} | drives |"
    )
    last = f"| **mean** | | | {' | '.join(f'**{value:.2f}**' for value in means)} |"
    return "\n".join([head, "|---|---|---|---:|---:|---:|", *rows, last])


def summary_of(row: Mapping[str, float]) -> str:
    return f"{row['median']:.3g} ({row['low']:.3g} to {row['high']:.3g})"


def real_kitti() -> str:
    lines = car_head()
    for version, name in ((2, "real_kitti_2"), (3, "real_kitti_3"), (4, "real_kitti")):
        for run, found in read(name)[0]["runs"].items():
            lines.append(car_row(f"{run}, version {version}", found))
            if "gain" in found and run == "distilled":
                lines.append(car_gain(f"gain of {run} over plain, version {version}", found))
    results = read("real_kitti")[0]
    note = (
        f"{car_note(results)} One seed. {reach_of(results)} Detectors of 32 m are those of the demo; the others were "
        "trained with `lidistill train pointpillars --data simulated-kitti`."
    )
    return "\n".join([*lines, "", fill(note, WIDTH)])


def real_training() -> str:
    results = read("real_training")[0]
    runs, first = results["runs"], next(iter(results["runs"]))
    lines = car_head()
    for run, found in runs.items():
        lines.append(car_row(run, found))
        if run != first:
            lines.append(car_gain(f"gain of {run} over {first}", found))
    columns = ("parameters", "initial weights", "trained on", "labels", "steps", "learning rate")
    conditions = [f"| run | {' | '.join(columns)} |", f"|---|---:|{'---|' * 3}---:|---:|"]
    conditions += [conditions_row(run, found["training"]) for run, found in runs.items()]
    seeds = sorted({found["seed"] for run, found in runs.items() if run != first})
    note = f"{car_note(results)} Seed {', '.join(map(str, seeds))}. {reach_of(results)}"
    return "\n".join([*lines, "", fill(note, WIDTH), "", *conditions])


def conditions_row(run: str, training: Mapping[str, Any]) -> str:
    """Return how a run was trained; less is recorded of the first run, which was trained elsewhere."""
    version = training["data"].get("version")
    simulated = f"frames of {version}" if version else "simulated frames"
    frames = [f"{training['frames']} real frames"] if "frames" in training else []
    if "simulated_frames" in training:
        frames = [f"{frames[0]}, {training['repeats']} times,", f"{training['simulated_frames']} {simulated}"]
    cells = (
        f"{training['parameters']:,}",
        training.get("initial_weights", "–"),
        " and ".join(frames) or simulated,
        training.get("labels", "simulated"),
        training["steps"],
        f"{training['learning_rate']:g}",
    )
    return f"| {run} | {' | '.join(map(str, cells))} |"


def car_head() -> list[str]:
    return [
        f"| Car, moderate, AP R40 | range | {' | '.join(CAR_SCORES)} | farther by | too long by | false positives |",
        f"|---|---:|{'---|' * len(CAR_SCORES)}---:|---:|---:|",
    ]


def car_row(title: str, found: Mapping[str, Any]) -> str:
    """Return a run's scores, median box errors and false positives; a dash if it found no car to measure."""
    scores = " | ".join(interval_of(found["ap"][key]) for key in CAR_SCORES.values())
    errors = found["box_errors"]["Car"]
    along, length = (f"{errors[name][0]:.2f} m" if name in errors else "–" for name in ("along", "length"))
    false_positives = sum(found["false_positives"]["Car"].values())
    return f"| {title} | {found['range_m']:.0f} m | {scores} | {along} | {length} | {false_positives} |"


def car_gain(title: str, found: Mapping[str, Any]) -> str:
    """Return the gains over the first run; a dash if one of the two runs never detected a car."""
    gains = " | ".join(interval_of(found["gain"].get(key), "+") for key in CAR_SCORES.values())
    return f"| {title} |  | {gains} | | | |"


def car_note(results: Mapping[str, Any]) -> str:
    return (
        f"95 % intervals over the {results['frames']} frames, with {results['objects']['Car']} cars; medians of the "
        f"errors of boxes that score at least {results['score_threshold']}."
    )


def reach_of(results: Mapping[str, Any]) -> str:
    within = {f"{run['objects_in_range']} within {run['range_m']:.0f} m" for run in results["runs"].values()}
    return (
        f"No detector finds what is beyond its range: of {sum(results['objects'].values())} labelled objects, "
        f"{' and '.join(sorted(within))}."
    )


def interval_of(values: Sequence[float | None] | None, sign: str = "") -> str:
    if values is None:
        return "–"
    value, low, high = (f"{part:{sign}.1f}" if part is not None else "–" for part in values)
    return f"{value} ({low} to {high})"


def pull() -> str:
    results = read("pull")[0]
    steps, frames, seeds = results["teacher's steps"], results["frames"], len(results["seeds"])
    shown = {
        name: {key: f"{value:.0f}" if value >= 10 else f"{value:.2g}" for key, value in row.items()}
        for name, row in results["pulls"].items()
    }
    rows = [f"| `{name}` | {row['median']} | {row['low']} to {row['high']} |" for name, row in shown.items()]
    said = fill(
        "Gradient norm of each method at its defaults over the student's parameters, relative to that of the "
        "detection loss: for untrained 4x "
        f"PointPillars students, a teacher trained for {steps} steps, and {frames} simulated frames "
        "(`docs/results/pull.json`). `lad` changes the "
        "detection loss itself, and methods that wait for the student's own detections do not pull yet.",
        WIDTH,
    )
    return "\n".join([said, "", f"| method | median | over {seeds} seeds |", "|---|---:|---:|", *rows])


PASSAGES: dict[str, Callable[[], str]] = {
    "pointdistiller": pointdistiller,
    "itkd": itkd,
    "fitnets": fitnets,
    "demo": demo,
    "cache_sizes": cache_sizes,
    "cache_times": cache_times,
    "simulator": simulator,
    "simulator_statistics": simulator_statistics,
    "real_kitti": real_kitti,
    "real_training": real_training,
    "pull": pull,
}
