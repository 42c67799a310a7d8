"""What small imported networks say about a frame made by formula: `python -m tests.interop.figures` records it beside
this file.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.interop import import_checkpoint
from lidistill.types import Batch, Boxes
from tests.interop.formula_weights import Table, digest, formula_state, small_table, write_checkpoint
from tests.interop.small_networks import centerpoint_voxel_table, second_table

PATH = Path(__file__).with_name("figures_pointpillars.json")
SOURCES = ("openpcdet", "mmdet3d")
GRID = VoxelGrid((0.0, -10.24, -3.0, 20.48, 10.24, 1.0), (0.16, 0.16, 4.0), max_points_per_voxel=8)
NOTE = (
    "Figures of this package, not of the tools: narrow PointPillars with weights made by formula, written as each "
    "tool writes its checkpoints, "
    "imported, and run on a frame made by formula. Recorded while the published networks, imported the same way, "
    "reproduced the outputs of both "
    "tools on a real frame (tests/real/test_checkpoint_parity.py)."
)

VOXEL_PATH = Path(__file__).with_name("figures_voxels.json")
VOXEL_MODELS = ("second", "centerpoint-voxel")
VOXEL_GRID = VoxelGrid((0.0, -12.8, -3.0, 25.6, 12.8, 1.0), (0.2, 0.2, 0.1), max_points_per_voxel=4)
VOXEL_NOTE = (
    "Figures of this package, not of the tools: narrow SECOND (as mmdetection3d writes it) and CenterPoint (as "
    "OpenPCDet does) with weights made by "
    "formula, imported, and run on a frame made by formula. Recorded while the published networks, imported the same "
    "way, reproduced the outputs of "
    "these tools on real frames (tests/real/test_second_parity.py, test_centerpoint_parity.py)."
)


def frame() -> Batch:
    """4000 points on a spiral that thins out with distance, and four boxes."""
    index = np.arange(4000, dtype=np.float64)
    distance = 1 + 21 * (index * 0.6180339887 % 1) ** 2
    angle = (index * 0.7548776662 % 1 - 0.5) * math.pi
    height = -2.2 + 2.5 * (index * 0.5698402910 % 1) ** 3
    points = np.stack([distance * np.cos(angle), distance * np.sin(angle), height, index * 0.3247179572 % 1], axis=1)
    boxes = torch.tensor(
        [
            [6.0, 1.0, -1.0, 3.9, 1.6, 1.56, 0.3],
            [14.1, -4.3, -0.9, 4.2, 1.7, 1.5, -2.6],
            [4.2, -3.2, 0.2, 0.8, 0.6, 1.73, 1.4],
            [9.3, 5.1, 0.1, 1.76, 0.6, 1.73, 3.0],
        ]
    )
    truth = Boxes(boxes, torch.tensor([0, 0, 1, 2]))
    return Batch(
        ("spiral",), torch.from_numpy(points.astype(np.float32)), torch.zeros(len(points), dtype=torch.int64), (truth,)
    )


def observe(source: str, folder: Path) -> dict[str, Any]:
    """Everything worth comparing of one imported PointPillars."""
    return observed(small_table(source), source, "pointpillars", "kitti", GRID, frame(), folder)


def observe_voxels(model: str, folder: Path) -> dict[str, Any]:
    """The same of SECOND as mmdetection3d writes it, or of CenterPoint as OpenPCDet does, on voxels."""
    if model == "second":
        return observed(second_table("mmdet3d"), "mmdet3d", model, "kitti", VOXEL_GRID, frame(), folder)
    plain = frame()
    boxes = replace(
        plain.boxes[0],
        labels=torch.tensor([0, 2, 8, 7]),
        velocity=torch.tensor([[1.0, 0.5], [0.0, 0.0], [-1.0, 2.0], [3.0, -4.0]]),
    )
    points = torch.cat([plain.points, plain.points[:, 3:] * 0.5], dim=1)
    batch = replace(plain, points=points, boxes=(boxes,))
    return observed(centerpoint_voxel_table("openpcdet"), "openpcdet", model, "nuscenes", VOXEL_GRID, batch, folder)


def observed(
    table: Table, source: str, model: str, dataset: str, grid: VoxelGrid, batch: Batch, folder: Path
) -> dict[str, Any]:
    """The figures of the network with formula weights, imported and run on `grid`."""
    state = formula_state(table)
    config, weights, _ = import_checkpoint(
        write_checkpoint(folder / f"{source}.pth", source, state), source, model, dataset
    )
    detector = replace(config, grid=grid).build().eval()
    detector.load_state_dict(weights)
    voxels = detector.prepare(batch)
    with torch.no_grad():
        output = detector(batch, voxels)
        found = detector.decode(output)[0]
    detector.train()
    losses = detector.loss(detector(batch, voxels), batch)
    losses.total.backward()
    return {
        "weights_sha256": digest(state),
        "voxels": [len(voxels.counts), len(voxels.points)],
        "maps": {
            **{name: _sums(tap.features) for name, tap in output.taps.items()},
            **{name: _sums(values) for name, values in output.heads[0].maps.items()},
            **{
                f"{name} of the last task": _sums(values)
                for name, values in output.heads[-1].maps.items()
                if len(output.heads) > 1
            },
        },
        "detections": {
            "count": len(found),
            "scores": found.scores[:20].double().sum().item(),
            "best": found.geometry[:5, :6].double().tolist(),
        },
        "losses": {name: term.item() for name, term in losses.terms.items()},
        "positives": losses.logs["positives"].item(),
        "gradient_norms": {
            name: parameter.grad.double().norm().item() for name, parameter in detector.named_parameters()
        },
        "running_sums": {
            name: value.double().sum().item() for name, value in detector.state_dict().items() if "running" in name
        },
    }


def _sums(values: torch.Tensor) -> list[float]:
    """Sum, sum of absolute values, sum of squares."""
    exact = values.detach().double()
    return [exact.sum().item(), exact.abs().sum().item(), exact.square().sum().item()]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        content = {"note": NOTE, **{source: observe(source, Path(folder)) for source in SOURCES}}
        voxels = {"note": VOXEL_NOTE, **{model: observe_voxels(model, Path(folder)) for model in VOXEL_MODELS}}
    PATH.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    VOXEL_PATH.write_text(json.dumps(voxels, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
