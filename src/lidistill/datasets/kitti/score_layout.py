"""The layout of KITTI's scores: by class and difficulty, with strict overlaps and 40 recall points first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lidistill.datasets.kitti.curves import RECALL_STEPS, ceiling
from lidistill.datasets.kitti.overlap_limits import LIMITS
from lidistill.datasets.kitti.score_names import DIFFICULTIES, MAIN, MEAN, ScoreKey
from lidistill.evaluation.layout import Axis, Charts, KeyTable, Layout, PrintedTable

IN_WORDS = {"3d": "3D", "bev": "BEV", "bbox": "image", "aos": "orientation"}
NO_OBJECT = "–"


def kitti_layout(
    classes: Sequence[str],
    values: Mapping[str, float | None],
    counts: Mapping[str, int],
    curves: Collection[str] = (),
) -> Layout:
    """The layout of a run's scores.

    `values`: key -> score; `counts`: "class/difficulty" -> number of labelled objects; `curves`: keys of the curves.
    """
    main = ScoreKey.parse(MAIN, classes)
    return Layout(
        headline=_in_words(main),
        summary={_row_name(name): str(main.of(name)) for name in (*classes, MEAN)},
        gains=KeyTable(
            title="AP of every class and difficulty",
            corner="Class",
            rows=tuple(map(_row_name, (*classes, MEAN))),
            columns=DIFFICULTIES,
            keys=tuple(tuple(str(main.of(name, level)) for level in DIFFICULTIES) for name in (*classes, MEAN)),
        ),
        tables=(_table(classes, "", "strict", "R40", ("3d", "bev")),),
        folded=(
            _table(classes, "Image boxes and orientation, R40", "strict", "R40", ("bbox", "aos")),
            _table(classes, "At the loose overlaps, R40", "loose", "R40", ("3d", "bev")),
            _table(classes, "By 11 recall points (R11), strict overlaps", "strict", "R11", ("3d", "bev")),
            _table(classes, "By 11 recall points (R11), image boxes and orientation", "strict", "R11", ("bbox", "aos")),
        ),
        counts=_counts_table(counts),
        charts=_charts(main, classes, curves),
        printed=_printed(classes, values, counts),
        not_evaluated="for KITTI, a class that is never detected",
    )


def curve_key(level: str, metric: str, name: str, difficulty: str) -> str:
    """The key of a precision-recall curve."""
    return f"{level}/{metric}/{name}/{difficulty}"


def _in_words(key: ScoreKey) -> str:
    """`strict/3d/mean/R40/moderate` -> `3D AP (R40), mean over classes, moderate, strict overlap`."""
    name = "mean over classes" if key.name == MEAN else key.name
    return f"{IN_WORDS[key.metric]} AP ({key.points}), {name}, {key.difficulty}, {key.level} overlap"


def _row_name(name: str) -> str:
    return "Mean" if name == MEAN else name


def _table(classes: Sequence[str], title: str, level: str, points: str, metrics: Sequence[str]) -> KeyTable:
    limits = ", ".join(f"{name} {LIMITS[name].at(level):g}" for name in classes if name in LIMITS)
    return KeyTable(
        title=title,
        corner="Class",
        rows=tuple(map(_row_name, (*classes, MEAN))),
        columns=tuple(f"{IN_WORDS[metric]} {difficulty}" for metric in metrics for difficulty in DIFFICULTIES),
        keys=_keys(classes, level, points, metrics),
        caption=f"AP {points}, {level} overlap{f' ({limits})' if limits else ''}, percent",
    )


def _keys(classes: Sequence[str], level: str, points: str, metrics: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Keys of every class and the mean, one row each; columns are ordered by metric, then difficulty."""
    return tuple(
        tuple(
            str(ScoreKey(level, metric, name, points, difficulty)) for metric in metrics for difficulty in DIFFICULTIES
        )
        for name in (*classes, MEAN)
    )


def _counts_table(counts: Mapping[str, int]) -> KeyTable | None:
    names = tuple(dict.fromkeys(key.rpartition("/")[0] for key in counts))
    if not names:
        return None
    return KeyTable(
        title="Number of objects behind the scores",
        corner="Class",
        rows=names,
        columns=DIFFICULTIES,
        keys=tuple(tuple(f"{name}/{difficulty}" for difficulty in DIFFICULTIES) for name in names),
        caption="Labelled objects that count; the fewer, the wider the intervals",
    )


def _charts(main: ScoreKey, classes: Sequence[str], curves: Collection[str]) -> Charts:
    keys = {name: curve_key(main.level, main.metric, name, main.difficulty) for name in classes}
    return Charts(
        title="Precision and recall",
        caption=(
            f"{IN_WORDS[main.metric]} boxes, {main.difficulty}, {main.level} overlap, at {RECALL_STEPS} recall steps. "
            "A curve ends at the highest recall that is reached."
        ),
        x=Axis("recall", "%", 0, 100),
        y=Axis("precision", "%", 0, 102),
        curves={name: key for name, key in keys.items() if key in curves},
    )


def _printed(classes: Sequence[str], values: Mapping[str, float | None], counts: Mapping[str, int]) -> PrintedTable:
    """The table on the terminal: 3D and BEV AP, the number of objects, and the highest AP that they allow."""
    metrics = ("3d", "bev")
    table = KeyTable(
        title="AP R40, strict overlap, percent",
        corner="class",
        rows=(*classes, MEAN),
        columns=tuple(f"{IN_WORDS[metric]} {level[:4]}." for metric in metrics for level in DIFFICULTIES),
        keys=_keys(classes, "strict", "R40", metrics),
    )
    if not counts:
        return PrintedTable(table)
    instead = {}
    for metric in metrics:
        for name in classes:
            for level in DIFFICULTIES:
                key, mean = (ScoreKey("strict", metric, owner, "R40", level) for owner in (name, MEAN))
                count = counts.get(f"{name}/{level}")
                if count == 0:
                    instead[str(key)] = NO_OBJECT
                elif count and values.get(str(key)) is None and values.get(str(mean)) is not None:
                    instead[str(key)] = "0.0"  # a class that is never detected; it counts as 0 in the mean too
    own = [[counts.get(f"{name}/{level}", 0) for level in DIFFICULTIES] for name in classes]
    return PrintedTable(
        table,
        instead,
        beside={
            "objects": (*(" ".join(map(str, row)) for row in own), ""),
            "at most": (
                *(" ".join(map(_ceiling, row)) for row in own),
                " ".join(map(_ceiling_of_mean, zip(*own, strict=True))),
            ),
        },
        note=(
            f"objects and at most: {', '.join(DIFFICULTIES)}. At most: the AP of the labels themselves; few "
            f"objects do not fill the curve. {NO_OBJECT}: no objects."
        ),
    )


def _ceiling(count: int) -> str:
    return f"{ceiling(count, 'R40'):.0f}" if count else NO_OBJECT


def _ceiling_of_mean(counts: Sequence[int]) -> str:
    """The highest possible mean over the classes that have objects, as text."""
    reached = [ceiling(count, "R40") for count in counts if count]
    return f"{sum(reached) / len(reached) if reached else 0.0:.0f}"
