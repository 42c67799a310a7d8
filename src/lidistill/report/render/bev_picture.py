"""Bird's-eye views: points, and the boxes of several sources in colours that can be told apart."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from lidistill.files import written_aside
from lidistill.report.palette import Colour, colours_of
from lidistill.types import Boxes, InputError

GROUND = "#0c1424"
RING = "#24324a"
QUIET = "#8fa0b8"
POINTS = LinearSegmentedColormap.from_list("height", ["#33507a", "#5f86b5", "#9fc0dd", "#e9f2fa"])
RING_STEP_M = 20.0
LABELLED_BOXES = 60  # more names than this hide the picture
TICK_BEYOND_M = 0.8  # the heading tick extends beyond the box by this much, so that it is visible on a pedestrian, too
DOTS_PER_INCH = 100


# names of files and classes may contain a dollar sign, which would start a formula
@matplotlib.rc_context({"text.parse_math": False})
def draw_bev(
    points: Tensor | ArrayLike,
    boxes: Mapping[str, Boxes],
    classes: Sequence[str],
    point_range: Sequence[float],
    path: str | Path | None = None,
    *,
    title: str = "",
    legend: bool = True,
    width_px: int = 720,
    text_scale: float = 1.0,
    colours: Mapping[str, Colour] | None = None,
) -> bytes:
    """Draw points (P, 3+) and the boxes of each source from above. Return the bytes of a PNG, and write them to `path`
    if given.

    Forward (+x) is up, and left (+y) is left. Each box has a tick from its centre through its front. The source "truth"
    is filled; names such as "teacher", "plain", "distilled" and "student" have fixed colours. The boxes of the first
    source are labelled with their class, and their score if they have one. `point_range` is x_min y_min z_min x_max
    y_max z_max in metres; points and boxes outside it in x or y are cut off, and those that are not finite are left
    out. `text_scale` enlarges texts and lines for pictures that are shown small. InputError if `point_range` is empty
    in x or y.
    """
    extent = tuple(float(value) for value in point_range)
    x_min, y_min, _, x_max, y_max, _ = extent
    if not (np.isfinite([x_min, y_min, x_max, y_max]).all() and x_max > x_min and y_max > y_min):
        raise InputError(
            f"point_range {tuple(point_range)} is empty; give x_min y_min z_min x_max y_max z_max in metres, each "
            "max above its min"
        )
    with _freed_at_once():
        content = _drawn(points, boxes, classes, extent, title, legend, width_px, text_scale, colours)
    if path is not None:
        with written_aside(path) as aside:
            aside.write_bytes(content)
    return content


@contextmanager
def _freed_at_once() -> Iterator[None]:
    """Free the memory of figures at the end of the block.

    A figure has reference cycles of about 1 MB, which would otherwise stay until a full garbage collection. Full
    collections are rare once libraries have made a million objects.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(0)


def _drawn(
    points: Tensor | ArrayLike,
    boxes: Mapping[str, Boxes],
    classes: Sequence[str],
    extent: Sequence[float],
    title: str,
    legend: bool,
    width_px: int,
    text_scale: float,
    colours: Mapping[str, Colour] | None,
) -> bytes:
    x_min, y_min, z_min, x_max, y_max, z_max = extent
    height_px = max(1, round(width_px * (x_max - x_min) / (y_max - y_min)))
    # Texts and lines keep their proportion to the picture, whatever its size.
    scale = text_scale * width_px / 720 * 72 / DOTS_PER_INCH
    figure = Figure(figsize=(width_px / DOTS_PER_INCH, height_px / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor=GROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-y_max, -y_min)
    axes.set_ylim(x_min, x_max)
    axes.set_axis_off()
    _draw_rings(axes, (x_min, y_min, x_max, y_max), scale)
    _draw_points(axes, points, (z_min, z_max), scale)
    chosen = dict(zip(boxes, colours_of(list(boxes)), strict=True)) | dict(colours or {})
    handles = []
    for order, (name, found) in enumerate(boxes.items()):
        count = _draw_boxes(
            axes, found, chosen[name].on_dark, classes, scale, filled=name == "truth", labelled=order == 0
        )
        handles.append(Line2D([], [], color=chosen[name].on_dark, linewidth=3 * scale, label=f"{name} ({count})"))
    if legend and handles:
        style: dict[str, Any] = {
            "facecolor": GROUND,
            "edgecolor": RING,
            "labelcolor": "#e8edf4",
            "framealpha": 0.85,
            "fancybox": False,
        }
        axes.legend(handles=handles, loc="upper right", fontsize=14 * scale, borderpad=0.6, handlelength=1.4, **style)
    title = title.encode(errors="backslashreplace").decode()  # a file name that is not UTF-8
    if title:
        axes.text(
            0.015, 0.985, title, transform=axes.transAxes, color="#e8edf4", fontsize=16 * scale, va="top", ha="left"
        )
    return _encoded(figure)


def _encoded(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    stream = io.BytesIO()
    # Here, 128 colours look like 2**24, and the file is three times smaller.
    picture.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def footprints(geometry: np.ndarray) -> np.ndarray:
    """Ground corners of boxes (N, 7) as (N, 4, 2) x y: front left, rear left, rear right, front right."""
    along = geometry[:, 3:4] / 2 * np.array([1, -1, -1, 1])
    across = geometry[:, 4:5] / 2 * np.array([1, 1, -1, -1])
    cos, sin = np.cos(geometry[:, 6:7]), np.sin(geometry[:, 6:7])
    return np.stack(
        [geometry[:, 0:1] + along * cos - across * sin, geometry[:, 1:2] + along * sin + across * cos], axis=-1
    )


def _on_paper(xy: np.ndarray) -> np.ndarray:
    """LiDAR x y (..., 2) to picture coordinates: forward is up, left is left."""
    return np.stack([-xy[..., 1], xy[..., 0]], axis=-1)


def _draw_rings(axes: Any, extent: tuple[float, float, float, float], scale: float) -> None:
    x_min, y_min, x_max, y_max = extent
    reach = float(np.hypot(max(abs(x_min), abs(x_max)), max(abs(y_min), abs(y_max))))
    turn = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    radii = np.arange(RING_STEP_M, min(reach, 1000.0) + 1, RING_STEP_M)
    axes.add_collection(
        LineCollection([radius * circle for radius in radii], colors=RING, linewidths=1.2 * scale, zorder=0)
    )
    for radius in radii[radii < x_max]:
        axes.text(
            0,
            radius,
            f"{radius:.0f} m",
            color=QUIET,
            fontsize=11 * scale,
            ha="center",
            va="bottom",
            clip_on=True,
            zorder=1,
        )
    # The sensor: a small arrow that points forward.
    axes.add_patch(
        Polygon([(-0.9, -1.0), (0.0, 1.6), (0.9, -1.0)], closed=True, facecolor=QUIET, edgecolor="none", zorder=4)
    )


def _draw_points(axes: Any, points: Tensor | ArrayLike, height: tuple[float, float], scale: float) -> None:
    cloud = _as_array(points)
    cloud = cloud.reshape(-1, cloud.shape[-1] if cloud.ndim > 1 and cloud.shape[-1] else 3)[:, :3]
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    if not len(cloud):
        return
    # The colours span the heights in the frame: most points are near the ground, far below the top of the range.
    inside = cloud[(cloud[:, 2] >= height[0]) & (cloud[:, 2] <= height[1])]
    low, high = np.percentile(inside[:, 2], [2, 98]) if len(inside) else height
    paper = _on_paper(cloud[:, :2])
    tone = np.clip((cloud[:, 2] - low) / max(high - low, 1e-3), 0, 1)
    axes.scatter(
        paper[:, 0], paper[:, 1], c=tone, cmap=POINTS, vmin=0, vmax=1, s=(1.7 * scale) ** 2, linewidths=0, zorder=2
    )


def _draw_boxes(
    axes: Any, boxes: Boxes, colour: str, classes: Sequence[str], scale: float, *, filled: bool, labelled: bool
) -> int:
    """Draw one source's boxes; returns how many could be drawn."""
    geometry = _as_array(boxes.geometry).reshape(-1, 7)
    finite = np.isfinite(geometry).all(axis=1)
    geometry = geometry[finite]
    if not len(geometry):
        return 0
    outline = _on_paper(footprints(geometry))
    fill = colour + "48" if filled else "none"
    width = (1.4 if filled else 2.4) * scale
    order = 5 if filled else 6
    axes.add_collection(
        PolyCollection(list(outline), facecolors=fill, edgecolors=colour, linewidths=width, zorder=order)
    )
    heading = np.stack([np.cos(geometry[:, 6]), np.sin(geometry[:, 6])], axis=-1)
    tip = geometry[:, :2] + heading * (geometry[:, 3:4] / 2 + TICK_BEYOND_M)
    ticks = np.stack([_on_paper(geometry[:, :2]), _on_paper(tip)], axis=1)
    axes.add_collection(LineCollection(list(ticks), colors=colour, linewidths=width, zorder=order))
    if labelled and len(geometry) <= LABELLED_BOXES:
        labels = _as_array(boxes.labels)[finite].astype(int)
        scores = None if boxes.scores is None else _as_array(boxes.scores)[finite]
        for row, corners in enumerate(outline):
            name = classes[labels[row]] if 0 <= labels[row] < len(classes) else f"class {labels[row]}"
            text = name if scores is None else f"{name} {scores[row]:.2f}"
            right, top = corners.max(axis=0)
            axes.text(
                right + 0.4,
                top,
                text,
                color=colour,
                fontsize=11 * scale,
                ha="left",
                va="center",
                clip_on=True,
                zorder=7,
            )
    return len(geometry)


def _as_array(values: Tensor | ArrayLike) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
