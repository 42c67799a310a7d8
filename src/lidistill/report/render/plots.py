"""Curves and charts. Each is drawn once and kept as an SVG whose colours follow the page, and as a PNG for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lidistill.datasets.kitti.score_names import DIFFICULTIES, MEAN
from lidistill.report import number_format as numbers
from lidistill.report.measures.gains import Pair, class_names
from lidistill.report.measures.runs import Run, is_simulated
from lidistill.report.measures.tables import main_key, score_name
from lidistill.report.measures.timing import Timing
from lidistill.report.page_blocks import Figure

INK = "#1b2431"
LINE = "#d8dee6"
SIZE_INCHES = (4.4, 3.1)
MOST_POINTS = 300  # of a curve; more are averaged in bins
MOST_STEP = 1e15  # further than any training goes
MOST_LOSS = 1e9  # a loss that exploded is drawn here: axes that reach further are of no use

_STYLE: Any = {
    "text.parse_math": False,  # names may hold a dollar sign
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def training_curves(runs: Sequence[Run]) -> list[Figure]:
    """The training loss, and the score on the validation frames where it was watched."""
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
            _figure("training_loss", "Training loss", "training loss of each run over the steps", draw_loss, runs)
        )
    main = main_key(runs)
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
            _figure(
                "validation_score",
                "Score on validation frames",
                "validation score of each run over the steps",
                draw_scores,
                runs,
            )
        )
    return figures


def precision_recall(runs: Sequence[Run]) -> list[Figure]:
    """Precision against recall for each class at the headline's overlap and difficulty."""
    parts = main_key(runs).split("/")
    if len(parts) != 5:
        return []
    curves: dict[str, list[tuple[int, Sequence[float]]]] = {}
    for row, run in enumerate(runs):
        for key, curve in ({} if run.scores is None else run.scores.curves).items():
            level, metric, name, difficulty = key.split("/") if key.count("/") == 3 else ("", "", "", "")
            if (level, metric, difficulty) == (parts[0], parts[1], parts[4]) and len(curve) > 1:
                curves.setdefault(name, []).append((row, curve))
    figures = []
    for name, rows in curves.items():

        def draw(axes: Any, rows: Sequence[tuple[int, Sequence[float]]] = rows) -> None:
            for row, curve in rows:
                # A curve ends where no threshold finds more.
                reached = 1 + max(np.flatnonzero(curve), default=0)
                recall = np.linspace(0, 100, len(curve))[:reached]
                axes.plot(
                    recall, 100 * np.asarray(curve)[:reached], color=runs[row].colour.on_light, label=runs[row].label
                )
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 102)
            axes.set_xlabel("recall, %")
            axes.set_ylabel("precision, %")

        figures.append(
            _figure(f"precision_recall_{_slug(name)}", name, f"precision against recall for {name}", draw, runs)
        )
    return figures


def score_against_cost(runs: Sequence[Run], pairs: Sequence[Pair], timing: Timing | None = None) -> list[Figure]:
    """The headline score against parameters, and where the runs were timed against latency; an arrow is what
    distillation changes.
    """
    main = main_key(runs)
    figures = []
    for name, title, label, read in (
        ("score_parameters", "Score and size", "parameters", lambda run: run.parameters),
        (
            "score_latency",
            "Score and speed",
            "median latency, ms a frame",
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
            room = max(np.ptp(values), 1.0)
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
                # Plain and distilled students cost the same: their figures stand on opposite sides.
                side = (
                    {"xytext": (-9, 0), "ha": "right"}
                    if runs[row].role == "plain"
                    else {"xytext": (9, 0), "ha": "left"}
                )
                axes.annotate(
                    numbers.score(value),
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
            axes.set_ylabel("AP, %")

        figures.append(_figure(name, title, f"{score_name(main)} against {label}", draw, runs))
    return figures


def gain_chart(pair: Pair, name: str = "gains") -> Figure | None:
    """The gain by class and difficulty, with its interval as a bar; None where nothing can be drawn."""
    names = class_names(list(pair.gains), "/".join(pair.main.split("/")[:2]))
    rows = [
        (f"{label if label != MEAN else 'mean'}", difficulty, gain)
        for label in names
        for difficulty in DIFFICULTIES
        for key, gain in pair.gains.items()
        if key.split("/")[2] == label and key.endswith(f"/{difficulty}") and gain.value is not None
    ]
    if not rows:
        return None
    colour, quiet = pair.distilled.colour.on_light, INK

    def draw(axes: Any) -> None:
        for place, (_, _, gain) in enumerate(rows):
            proven = gain.is_proven
            style: dict[str, Any] = {"color": colour if proven else quiet, "alpha": 1.0 if proven else 0.55}
            if gain.has_interval:
                axes.plot([gain.low, gain.high], [-place, -place], linewidth=3, solid_capstyle="round", **style)
            axes.plot([gain.value], [-place], "o", markersize=7, **style)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_yticks(
            [-place for place in range(len(rows))], [f"{label}, {difficulty}" for label, difficulty, _ in rows]
        )
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("gain, AP percentage points")

    return _figure(
        name, "Gain by class", "gain of the distilled over the plain student with intervals", draw, [pair.distilled]
    )


def _figure(name: str, title: str, alt: str, draw: Callable[[Any], None], runs: Sequence[Run]) -> Figure:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=SIZE_INCHES, layout="constrained")
        axes = canvas.add_subplot()
        draw(axes)
        axes.set_title(title)
        if is_simulated(runs):
            axes.set_title("simulated", loc="right", fontsize=8, fontweight="normal")
        drawing = io.StringIO()
        FigureCanvasSVG(canvas).print_svg(
            drawing, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
        # Only the PNG stands alone and needs to say which colour is which run; the page has one legend for all.
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            canvas.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        picture = io.BytesIO()
        canvas.set_dpi(160)
        canvas.set_facecolor("white")
        FigureCanvasAgg(canvas).print_png(picture, metadata={"Software": None})
    return Figure(
        name,
        alt,
        picture.getvalue(),
        _themed(drawing.getvalue(), name, {run.colour.on_light: run.colour.on_dark for run in runs}),
    )


def _themed(svg: str, name: str, hues: Mapping[str, str]) -> str:
    """The bare <svg> element: text and lines take the page's colours, identifiers carry the figure's name, no address
    is left.
    """
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r'(<svg [^>]*?) (?:width|height)="[^"]*"',
        r"\1",
        re.sub(r'(<svg [^>]*?) (?:width|height)="[^"]*"', r"\1", body, count=1),
        count=1,
    )
    body = re.sub(r' (?:xmlns(?::xlink)?|version)="[^"]*"', "", body, count=3)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(
        r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", lambda found: _font(found.group(1), found.group(2)), body
    )
    body = body.replace(INK, "currentColor").replace(LINE, "var(--line)")
    for light in hues:
        body = body.replace(light, f"var(--hue-{light[1:]}, {light})")
    # The white ground would hide the page's own.
    return re.sub(r"fill: #ffffff", "fill: none", body)


def _font(family_only: str | None, before: str) -> str:
    return "font-family: inherit" if family_only else f"font: {before}var(--font)"


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
    """The costs without those so near to a smaller one that their labels would overlap on a logarithmic axis."""
    kept: list[float] = []
    for cost in sorted(costs.tolist()):
        if not kept or np.log(cost / kept[-1]) > 0.2 * np.log(costs.max() / costs.min()) + 0.1:
            kept.append(cost)
    return kept


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "class"
