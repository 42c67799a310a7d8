"""Charts as an SVG whose colours follow the page, and as a PNG for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from lidistill.report.measures.runs import Run, is_simulated
from lidistill.report.page_blocks import Figure

INK = "#1b2431"
LINE = "#d8dee6"
SIZE_INCHES = (4.4, 3.1)

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


def drawn(name: str, title: str, alt: str, draw: Callable[[Any], None], runs: Sequence[Run]) -> Figure:
    """Draw a chart by calling `draw(axes)`, under a title. The SVG's colours of `runs` follow the theme of the page."""
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
        # Only the PNG needs a legend, because it is shown alone; the page has one legend for all charts.
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
    """Return the bare <svg> element: text and lines take the page's colours, identifiers begin with the figure's name,
    and URLs are removed.
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
    # The white background would hide the page's own.
    return re.sub(r"fill: #ffffff", "fill: none", body)


def _font(family_only: str | None, before: str) -> str:
    return "font-family: inherit" if family_only else f"font: {before}var(--font)"


def slug(name: str) -> str:
    """Turn a name into a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "class"
