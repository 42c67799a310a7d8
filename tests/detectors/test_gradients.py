"""Gradients of the detectors and of their reductions in double precision against finite differences, on frames with
duplicate points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lidistill.detector_inputs import Voxels
from lidistill.detectors.bev_detector import BevDetectorConfig
from lidistill.detectors.canvas import Canvas
from lidistill.detectors.detector import Detector
from lidistill.detectors.encoders.pillars import SlotRows, decorated_points, moments, moments_behind
from lidistill.detectors.encoders.voxels import flattened, voxel_means
from lidistill.detectors.heads.anchor.losses import box_loss, direction_loss, focal_loss
from lidistill.detectors.heads.center.losses import code_loss, heatmap_loss, peak_costs
from lidistill.ops.kernels.sparse_convolution import Sites
from lidistill.types import Batch
from tests.detectors.small import batch_of, random_voxels, scene, small_config
from tests.detectors.test_centerpoint import FORMS
from tests.detectors.test_second import small_config as small_second
from tests.reference.slopes import slope_along

STEP = 1e-7  # so small that hardly any value passes the bend of a ReLU or loses a maximum on the way
DETECTORS: dict[str, BevDetectorConfig] = {
    "pointpillars": small_config(),
    "pointpillars, two layers": replace(small_config(), encoder=replace(small_config().encoder, hidden_channels=(6,))),
    "second": small_second(),
    **{f"centerpoint, {name}": config for name, config in FORMS.items()},
}


def doubled_scene(seed: int) -> tuple[Tensor, object]:
    """Every third point twice, every ninth four times, as several sweeps or a driver's repeated returns give them."""
    points, boxes = scene(torch.Generator().manual_seed(seed), num_points=120)
    return torch.cat([points, points[::3], points[::9], points[::9]]), boxes


def wide(config: BevDetectorConfig) -> tuple[Detector, Batch, Voxels]:
    """The detector in double precision with norms of both signs, none of whose channels sits at the bend of a ReLU, and
    its input.
    """
    torch.manual_seed(0)
    detector = config.build().double().train()
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.5, 1.5).mul_(torch.where(torch.rand_like(module.weight) < 0.3, -1, 1))
                module.bias.uniform_(-0.5, 0.5)
    batch = batch_of(doubled_scene(0), doubled_scene(1))
    voxels = detector.prepare(batch)
    assert voxels is not None
    return detector, batch, replace(voxels, points=voxels.points.double())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["default layout", "contiguous"])
@pytest.mark.parametrize("name", DETECTORS)
def test_the_gradient_of_every_part_is_that_of_finite_differences(name, layout):
    """Along random directions, in which every parameter of the part goes equally far."""
    detector, batch, voxels = wide(DETECTORS[name])
    detector.to(memory_format=layout)

    def loss() -> Tensor:
        return torch.stack(list(detector.loss(detector(batch, voxels), batch).terms.values())).sum()

    total = loss()
    assert total.dtype == torch.float64
    total.backward()
    draw = torch.Generator().manual_seed(1)
    for part in [*detector.encoder.children(), detector.trunk, detector.neck, detector.head]:
        parameters = list(part.parameters())
        drawn = [torch.randn(parameter.shape, generator=draw, dtype=torch.float64) for parameter in parameters]
        directions = [values / values.norm() for values in drawn]
        found = slope_along(directions, parameters, loss, STEP)
        stated = sum(
            (parameter.grad * direction).sum().item()
            for parameter, direction in zip(parameters, directions, strict=True)
        )
        assert stated == pytest.approx(found, rel=1e-5, abs=1e-7 * abs(total.item()))


VOXELS = random_voxels()
COPIES = torch.arange(len(VOXELS.points)) // 2  # neighbours in a pillar are often alike
PULL = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([1, 2, 0, -1, 0, 2])
PILLARS = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 2, 2], [1, 0, 0, 0]])
SITES = Sites(torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 0, 2], [1, 0, 0, 0]]), (2, 3, 3), 2)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def slots(points: Tensor) -> SlotRows:
    return SlotRows(points[COPIES], points.new_zeros(1, points.shape[1]))


def of_frames(points: Tensor) -> Voxels:
    return replace(VOXELS, points=points[COPIES])


REDUCTIONS: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
    "decorated_points": (lambda points: decorated_points(of_frames(points), False), (draw(len(COPIES), 4),)),
    "voxel_means": (lambda points: voxel_means(of_frames(points)), (draw(len(COPIES), 4),)),
    "moments": (lambda points: moments(slots(points), VOXELS), (draw(len(COPIES), 3),)),
    "moments_behind": (
        lambda points, weight: moments_behind(slots(points), weight, VOXELS),
        (draw(len(COPIES), 3), draw(4, 3)),
    ),
    "canvas": (
        lambda rows: Canvas(rows[torch.tensor([0, 1, 1, 0])], Sites(PILLARS, (1, 3, 3), 2)).dense(),
        (draw(2, 3),),
    ),
    "flattened": (lambda rows: flattened(rows[torch.tensor([0, 0, 1, 1])], SITES).dense(), (draw(2, 3),)),
    "focal_loss": (
        lambda logits: focal_loss(logits[torch.tensor([0, 1, 1, 0, 2, 2])], LABELS, 0.25, 2.0),
        (draw(3, 2),),
    ),
    "box_loss": (
        lambda codes: box_loss(codes.repeat(2, 1), torch.zeros(6, 7).double(), 1 / 9, torch.ones(7).double()),
        (draw(3, 7),),
    ),
    "direction_loss": (
        lambda logits: direction_loss(logits.repeat(2, 1), torch.tensor([0, 1, 1, 0, 0, 1])),
        (draw(3, 2),),
    ),
    "heatmap_loss": (
        lambda logits: heatmap_loss(logits.repeat(1, 1, 2, 1), (PULL[:36].view(1, 2, 6, 3) > 1).double()),
        (draw(1, 2, 3, 3),),
    ),
    "peak_costs": (lambda logits: peak_costs(logits.repeat(2)), (draw(3),)),
    "code_loss": (
        lambda codes: code_loss(codes.repeat(2, 1), torch.full((6, 8), 0.1).double(), torch.ones(8).double()),
        (draw(3, 8),),
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_gradient_of_every_reduction_is_that_of_finite_differences(name):
    reduction, leaves = REDUCTIONS[name]
    assert torch.autograd.gradcheck(reduction, leaves)
