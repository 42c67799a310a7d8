"""The charts of a report: training, the protocol's curves, score against cost, and gains with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lidistill.evaluation.scores import Curve
from lidistill.report import number_format as numbers
from lidistill.report.measures.gains import Pair
from lidistill.report.measures.runs import Run, first_scores
from lidistill.report.measures.timing import Timing
from lidistill.report.page_blocks import Figure
from lidistill.report.render.svg_figure import INK, drawn, slug

MOST_POINTS = 300  # of a curve; more are averaged in bins
MOST_STEP = 1e15  # more steps than any training takes
MOST_LOSS = 1e9  # a loss that exploded is drawn here, because longer axes would be useless


def training_curves(runs: Sequence[Run]) -> list[Figure]:
    """The training loss, and the score on the validation frames if it was logged."""
    figures = []
    losses = [(row, *_series(run.log, "train", "loss")) for row, run in enumerate(runs)]
    if any(len(steps) for _, steps, _ in losses):

        def draw_loss(axes: Any) -> None:
            for row, steps, values in losses:
                axes.plot(
                    *_thinned(steps, values.clip(-MOST_LOSS, MOST_LOSS)),
                    color=runs[row].colour.on_light,
                    label=runs[row].label,
                )
            if all((values > 1 / MOST_LOSS).all() for _, _, values in losses):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("step")

        figures.append(
            drawn("training_loss", "Training loss", "training loss of each run over the steps", draw_loss, runs)
        )
    found = first_scores(runs)
    main = "" if found is None else found.main
    scores = [(row, *_series(run.log, "validation", main)) for row, run in enumerate(runs)]
    if any(len(steps) for _, steps, _ in scores):

        def draw_scores(axes: Any) -> None:
            for row, steps, values in scores:
                axes.plot(
                    steps,
                    values.clip(-MOST_LOSS, MOST_LOSS),
                    color=runs[row].colour.on_light,
                    marker="o",
                    markersize=4,
                    label=runs[row].label,
                )
            axes.set_ylim(bottom=0)
            axes.set_xlabel("step")

        figures.append(
            drawn(
                "validation_score",
                "Score on validation frames",
                "validation score of each run over the steps",
                draw_scores,
                runs,
            )
        )
    return figures


def score_curves(runs: Sequence[Run]) -> list[Figure]:
    """The curves that the protocol lays out, one chart for each title."""
    first = first_scores(runs)
    if first is None or first.layout.charts is None:
        return []
    x, y = first.layout.charts.x, first.layout.charts.y
    curves: dict[str, list[tuple[int, Curve]]] = {}
    for row, run in enumerate(runs):
        charts = None if run.scores is None else run.scores.layout.charts
        for title, key in ({} if charts is None else charts.curves).items():
            if run.scores is not None and key in run.scores.curves:
                curves.setdefault(title, []).append((row, run.scores.curves[key]))
    figures = []
    for title, rows in curves.items():

        def draw(axes: Any, rows: Sequence[tuple[int, Curve]] = rows) -> None:
            for row, curve in rows:
                axes.plot(curve.x, curve.y, color=runs[row].colour.on_light, label=runs[row].label)
            axes.set_xlim(x.low, x.high)
            axes.set_ylim(y.low, y.high)
            axes.set_xlabel(x.label)
            axes.set_ylabel(y.label)

        name = slug(f"{y.quantity}_{x.quantity}_{slug(title)}")
        figures.append(drawn(name, title, f"{y.quantity} against {x.quantity} for {title}", draw, runs))
    return figures


def score_against_cost(runs: Sequence[Run], pairs: Sequence[Pair], timing: Timing | None = None) -> list[Figure]:
    """The headline score against parameters, and against latency if the runs were timed. Arrows point from the plain to
    the distilled student.
    """
    scores = first_scores(runs)
    if scores is None:
        return []
    main, scale = scores.main, scores.scale
    figures = []
    for name, title, label, read in (
        ("score_parameters", "Score and size", "parameters", lambda run: run.parameters),
        (
            "score_latency",
            "Score and speed",
            "median latency, ms per frame",
            lambda run: None if timing is None else timing.median(run),
        ),
    ):
        found = [(row, numbers.finite(read(run)), run.value(main)) for row, run in enumerate(runs)]
        placed = [
            (row, cost, value) for row, cost, value in found if cost is not None and cost > 0 and value is not None
        ]
        if len(placed) < 2:
            continue

        def draw(
            axes: Any, placed: Sequence[tuple[int, float, float]] = placed, label: str = label, name: str = name
        ) -> None:
            costs, values = (np.array([point[column] for point in placed]) for column in (1, 2))
            axes.set_xscale("log")
            axes.set_xlim(costs.min() / 1.7, costs.max() * 1.7)
            room = max(np.ptp(values), 10 * 10.0**-scale.decimals)
            axes.set_ylim(values.min() - 0.35 * room, values.max() + 0.35 * room)
            at = {runs[row].label: (cost, value) for row, cost, value in placed}
            for pair in pairs:
                if pair.plain.label in at and pair.distilled.label in at:
                    arrow = {
                        "arrowstyle": "-|>",
                        "color": INK,
                        "alpha": 0.6,
                        "shrinkA": 7,
                        "shrinkB": 7,
                        "linewidth": 1.6,
                    }
                    axes.annotate("", at[pair.distilled.label], at[pair.plain.label], arrowprops=arrow)
            for row, cost, value in placed:
                axes.plot([cost], [value], "o", color=runs[row].colour.on_light, markersize=9)
                # Plain and distilled students cost the same, so their scores are written on opposite sides.
                side = (
                    {"xytext": (-9, 0), "ha": "right"}
                    if runs[row].role == "plain"
                    else {"xytext": (9, 0), "ha": "left"}
                )
                axes.annotate(
                    numbers.score(value, scale),
                    (cost, value),
                    textcoords="offset points",
                    va="center",
                    fontweight="bold",
                    **side,
                )
            written = numbers.amount if name == "score_parameters" else lambda cost: f"{cost:.3g}"
            marked = _apart(costs)
            axes.set_xticks(marked, [written(cost) for cost in marked])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(label)
            axes.set_ylabel(scale.on_axis)

        figures.append(drawn(name, title, f"{scores.layout.headline} against {label}", draw, runs))
    return figures


def gain_chart(pair: Pair, name: str = "gains") -> Figure | None:
    """The gain in each score that the protocol lists for gains, with its interval as a bar; None if nothing can be
    drawn.
    """
    scores = pair.distilled.scores
    if scores is None:
        return None
    rows = [
        (f"{row}, {column}", gain)
        for row, column, key in scores.layout.gains.places
        if (gain := pair.gains.get(key)) is not None and gain.value is not None and gain.scale == scores.scale
    ]
    if not rows:
        return None
    colour, quiet = pair.distilled.colour.on_light, INK

    def draw(axes: Any) -> None:
        for place, (_, gain) in enumerate(rows):
            proven = gain.is_proven
            style: dict[str, Any] = {"color": colour if proven else quiet, "alpha": 1.0 if proven else 0.55}
            if gain.has_interval:
                axes.plot([gain.low, gain.high], [-place, -place], linewidth=3, solid_capstyle="round", **style)
            axes.plot([gain.value], [-place], "o", markersize=7, **style)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_yticks([-place for place in range(len(rows))], [label for label, _ in rows])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"gain, {scores.scale.of_difference}".removesuffix(", "))

    return drawn(
        name, "Gain by class", "gain of the distilled over the plain student with intervals", draw, [pair.distilled]
    )


def _series(log: Sequence[Mapping[str, Any]], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the lines of one kind, in order; lines without finite numbers are left out."""
    pairs = [
        (numbers.finite(entry.get("step")), numbers.finite(entry.get(key)))
        for entry in log
        if entry.get("kind") == kind
    ]
    known = [(step, value) for step, value in pairs if step is not None and value is not None]
    columns = np.array(sorted(known, key=lambda pair: pair[0]), dtype=np.float64).reshape(-1, 2)
    return columns[:, 0].clip(0, MOST_STEP), columns[:, 1]


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbouring points, so that at most MOST_POINTS are left."""
    bins = np.array_split(np.arange(len(steps)), min(len(steps), MOST_POINTS)) if len(steps) else []
    return np.array([steps[rows].mean() for rows in bins]), np.array([values[rows].mean() for rows in bins])


def _apart(costs: np.ndarray) -> list[float]:
    """Costs to label on a logarithmic axis: a cost is left out if its label would overlap that of a smaller cost."""
    kept: list[float] = []
    for cost in sorted(costs.tolist()):
        if not kept or np.log(cost / kept[-1]) > 0.2 * np.log(costs.max() / costs.min()) + 0.1:
            kept.append(cost)
    return kept
