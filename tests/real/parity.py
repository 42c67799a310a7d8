"""Networks of public tools with weights made by a formula, imported and run beside the tools' stored outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lidistill.detector_inputs import Voxels
from lidistill.detectors.detector import Detector, DetectorConfig
from lidistill.interop import import_checkpoint
from lidistill.outputs import DetectorOutput
from lidistill.types import Batch, Boxes, Losses
from tests.interop.formula_weights import digest, formula_state, read_table, write_checkpoint

Figures = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One imported network and all that it said about the frame, beside the tool's figures."""

    source: str
    figures: Figures
    detector: Detector  # after one training pass forward and backward
    voxels: Voxels
    batch: Batch
    evaluated: DetectorOutput
    detections: Boxes
    losses: Losses
    layers: dict[str, Tensor]  # what the watched modules gave in evaluation

    @property
    def labels(self) -> tuple[str, ...]:
        return self.detector.config.classes


def imported(
    reference: Callable[..., Path], folder: Path, name: str, model: str, dataset: str
) -> tuple[DetectorConfig, dict[str, Tensor], dict]:
    """The network of that name, written with its formula weights as its tool would and read back; a skip where numpy
    draws other numbers.
    """
    source = name.split("_")[0]
    path = write_checkpoint(
        folder / f"{name}.pth", source, formula_state(read_table(reference("checkpoints", f"{name}.keys.json")))
    )
    return import_checkpoint(path, source, model, dataset)


def run_case(
    reference: Callable[..., Path],
    folder: Path,
    name: str,
    model: str,
    dataset: str,
    truth: Callable[[Figures, tuple[str, ...]], Boxes],
    watched: tuple[str, ...] = (),
    before_training: Callable[[Detector], object] = lambda detector: None,
) -> Case:
    """Import the network, evaluate its input, and train on it for one pass with the voxels of evaluation, as the
    references were made.
    """
    with np.load(reference("checkpoints", f"{name}.npz"), allow_pickle=False) as stored:
        figures = {key: stored[key] for key in stored.files}
    if digest(formula_state(read_table(reference("checkpoints", f"{name}.keys.json")))) != str(
        figures["meta.weights_sha256"]
    ):
        pytest.skip("this numpy draws other numbers from a seed than the one that made the reference weights")
    config, weights, _ = imported(reference, folder, name, model, dataset)
    detector = config.build()
    detector.load_state_dict(weights)

    with np.load(reference("checkpoints", "inputs", f"{figures['meta.input']}.npz"), allow_pickle=False) as stored:
        points = torch.from_numpy(stored["points"])
    batch = Batch(
        (str(figures["meta.input"]),),
        points,
        torch.zeros(len(points), dtype=torch.int64),
        (truth(figures, config.classes),),
    )
    layers: dict[str, Tensor] = {}
    hooks = [detector.get_submodule(path).register_forward_hook(_keep(layers, path)) for path in watched]
    detector.eval()
    voxels = detector.prepare(batch)
    assert voxels is not None
    with torch.no_grad():
        evaluated = detector(batch, voxels)
        detections = detector.decode(evaluated)[0]
    for hook in hooks:
        hook.remove()
    before_training(detector.train())
    losses = detector.loss(detector(batch, voxels), batch)
    losses.total.backward()
    return Case(name.split("_")[0], figures, detector, voxels, batch, evaluated, detections, losses, layers)


def _keep(layers: dict[str, Tensor], path: str) -> Callable[..., None]:
    def keep(module: torch.nn.Module, inputs: tuple, output: Tensor) -> None:
        layers[path] = output.clone()

    return keep


def with_centred_z(boxes: np.ndarray) -> np.ndarray:
    """Boxes of mmdetection3d, which stand on their z, by their centres."""
    centred = boxes.copy()
    centred[:, 2] += centred[:, 5] / 2
    return centred


def assert_stored(figures: Figures, key: str, values: Tensor) -> None:
    """`values` against a stored array, or against its sums and its sample."""
    ours = values.detach().contiguous().numpy()
    if key in figures:
        expected, sample = figures[key].reshape(-1), ours.reshape(-1)
    else:
        assert ours.shape == tuple(figures[f"{key}:shape"])
        expected, sample = figures[f"{key}:flat"], ours.reshape(-1)[:: int(figures[f"{key}:stride"])]
        total, absolute, squares = figures[f"{key}:stats"]
        exact = ours.astype(np.float64)
        assert abs(exact.sum() - total) <= 1e-5 * absolute
        assert abs(np.abs(exact).sum() - absolute) <= 1e-5 * absolute
        assert abs((exact**2).sum() - squares) <= 1e-4 * squares
    np.testing.assert_allclose(sample, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def assert_same_voxels(case: Case) -> None:
    """The same rows in the same order, with as many points."""
    coords = case.voxels.coords[:, 1:].numpy()
    np.testing.assert_array_equal(coords, case.figures["voxel.coords_zyx"])
    np.testing.assert_array_equal(case.voxels.counts.numpy(), case.figures["voxel.num_points"])
    assert hashlib.sha256(np.ascontiguousarray(coords, dtype=np.int32).tobytes()).hexdigest() == str(
        case.figures["voxel.coords_sha256"]
    )


def assert_sparse(figures: Figures, key: str, coords: Tensor, features: Tensor, shape: tuple[int, int, int]) -> None:
    """Sites (N, 4: batch z y x) on a grid of `shape` and their features (N, C) against a stored sparse tensor, whatever
    the order of the rows.
    """
    assert shape == tuple(figures[f"{key}:spatial_shape"])
    sites = coords.numpy().astype(np.int32)
    order = np.lexsort(sites.T[::-1])
    assert hashlib.sha256(np.ascontiguousarray(sites[order]).tobytes()).hexdigest() == str(
        figures[f"{key}:coords_sha256"]
    )
    assert_stored(figures, f"{key}:features_sorted", features[torch.from_numpy(order)])


def gradient_norms(case: Case, own_name: Callable[[str], str]) -> tuple[np.ndarray, np.ndarray]:
    """Ours and the tool's, parameter by parameter; every parameter has its own."""
    parameters = dict(case.detector.named_parameters())
    names = case.figures["gradnorm.names"].tolist()
    assert sorted(own_name(name) for name in names) == sorted(parameters)
    ours = [parameters[own_name(name)].grad.double().norm().item() for name in names]
    return np.array(ours), case.figures["gradnorm.values"]


def assert_running_statistics(case: Case, own_name: Callable[[str], str]) -> None:
    """Sums of the running means and variances after one training pass."""
    state = case.detector.state_dict()
    ours = [state[own_name(name)].double().sum().item() for name in case.figures["bn_after.names"].tolist()]
    np.testing.assert_allclose(ours, case.figures["bn_after.sums"], rtol=1e-5, atol=1e-5)


def nearest_detection(case: Case, box: np.ndarray, label: int, score: float) -> int | None:
    """Our detection of class `label` that is this box (7,), if there is one: every number within 2e-3, the score within
    1e-4.
    """
    rows = (case.detections.labels == label).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    away = (case.detections.geometry[rows, :3] - torch.from_numpy(box[:3])).norm(dim=1)
    nearest = int(rows[away.argmin()])
    off = (case.detections.geometry[nearest] - torch.from_numpy(box)).abs().max()
    return nearest if off <= 2e-3 and abs(case.detections.scores[nearest] - score) <= 1e-4 else None


def assert_runs(config: DetectorConfig, weights: dict[str, Tensor]) -> None:
    """Forward and decoding on a few hundred points, over a piece of the network's range that keeps the trunk small."""
    low, high, size = config.grid.point_range[2], config.grid.point_range[5], config.grid.voxel_size
    lowest, extent = torch.tensor([0.0, 0.0, low]), torch.tensor([size[0] * 64, size[1] * 64, high - low])
    piece = (0.0, 0.0, low, extent[0].item(), extent[1].item(), high)
    detector = replace(config, grid=replace(config.grid, point_range=piece)).build().eval()
    detector.load_state_dict(weights)
    points = torch.rand(400, 3 + len(config.point_features), generator=torch.Generator().manual_seed(0))
    points[:, :3] = points[:, :3] * extent + lowest
    batch = Batch(("random",), points, torch.zeros(400, dtype=torch.int64), (Boxes.empty(),))
    with torch.no_grad():
        output = detector(batch)
        found = detector.decode(output)[0]
    assert all(torch.isfinite(values).all() for head in output.heads for values in head.maps.values())
    assert torch.isfinite(found.geometry).all()
    assert len(found) > 0
