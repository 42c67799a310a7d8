"""Put the demo's recorded result into README.md, and draw its picture from the folder of a demo.

    python benchmarks/readme_demo.py                       # the table, from docs/results/demo.json
    python benchmarks/readme_demo.py --folder runs/demo    # also docs/demo.png, from the distilled student there

The picture shows the middle one of the run's sample frames, which are evenly spaced, not selected.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from recorded import duration

from lidistill.evaluation.predict import Predictions
from lidistill.report.measures.samples import load_samples
from lidistill.report.render.bev_picture import draw_bev
from lidistill.report.render.pictures import MINIMUM_SCORE, view_of
from lidistill.run_folder import RunFolder
from lidistill.types import Boxes

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "demo.png"
BETWEEN = re.compile(r"(<!-- benchmarks/readme_demo.py -->\n).*?(\n<!-- end -->)", flags=re.DOTALL)
NAMES = {"teacher": "teacher", "plain": "student alone", "distilled": "student, distilled"}
WIDTH_PX = 960


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder of a demo; without it, the picture stays as it is")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        draw(RunFolder(arguments.folder / "distilled"))
    readme = ROOT / "README.md"
    readme.write_text(
        BETWEEN.sub(lambda marks: marks[1] + block() + marks[2], readme.read_text(encoding="utf-8")), encoding="utf-8"
    )


def block() -> str:
    """Return the text between the marks in the README."""
    content = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))
    results, where = content["results"], content["environment"]
    gain, runs = results["gain of distilled over plain"], results["runs"]
    any_run = runs["teacher"]
    lines = [
        f"Expected result of `make demo`, **simulated data** ({any_run.get('dataset_version', 'simulator 2')}), "
        f"{any_run['frames']} validation frames, **one seed** ({any_run['seed']}); KITTI metric, "
        "3D AP (R40) at the strict overlaps, moderate:",
        "",
        "| | Car | Pedestrian | Cyclist | mean | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        values = [f"{run['values'][f'strict/3d/{kind}/R40/moderate']:.1f}" for kind in ("Car", "Pedestrian", "Cyclist")]
        lines.append(
            f"| {NAMES[name]} | {' | '.join(values)} | **{run['values'][run['main']]:.1f}** | {run['parameters']:,} |"
        )
    lines += [
        "",
        f"Distilled over plain: {gain['gain']:+.1f} AP, {gain['level']:.0%} interval over frames {gain['low']:+.1f} "
        f"to {gain['high']:+.1f}; "
        "it says nothing about other seeds. "
        f"{duration(results, '{:.1f} minutes on ')}{where['device']}, {where['threads']} "
        f"thread{'' if where['threads'] == 1 else 's'}. "
        "Another machine may round differently and give other figures.",
    ]
    if PICTURE.is_file():
        lines += [
            "",
            "![A simulated street from above: labelled objects and the distilled student's "
            f"boxes]({PICTURE.relative_to(ROOT)})",
        ]
    return "\n".join(lines)


def draw(run: RunFolder) -> None:
    """Draw the labelled boxes and the run's detections on one frame, to docs/demo.png."""
    samples, predictions = load_samples(run.samples), Predictions.load(run.predictions)
    frame = samples.frames[len(samples.frames) // 2]
    found = predictions.boxes[predictions.frame_ids.index(frame.id)]
    assert predictions.classes == samples.classes and found.scores is not None
    found = found[found.scores >= MINIMUM_SCORE]
    truth = Boxes.empty() if frame.boxes is None else frame.boxes
    boxes = {"truth": truth, "distilled": found}
    draw_bev(
        frame.points,
        boxes,
        samples.classes,
        view_of(list(boxes.values()), samples.point_range),
        PICTURE,
        title=f"simulated frame {frame.id} (make demo)",
        width_px=WIDTH_PX,
        text_scale=1.2,
    )


if __name__ == "__main__":
    main()
