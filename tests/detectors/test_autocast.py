"""Under bf16 autocast the products are rounded; what must be exact stays in single precision, and nothing is further
off than the rounding.
"""

from __future__ import annotations

import torch
from torch import nn

from lidistill.detectors.detector import Detector
from lidistill.evaluation.predict import predict
from lidistill.half_precision import autocast
from lidistill.types import Frame
from tests.detectors.small import small_batch, small_config
from tests.detectors.test_inference import each_detector

CPU = torch.device("cpu")
ROUNDING = 2.0**-8  # of a bf16 number, which has 8 significant bits


def built(config) -> Detector:
    torch.manual_seed(1)
    return config.build().train()


@each_detector
def test_the_losses_are_those_of_single_precision_to_its_rounding(config):
    """Two roundings a term: the maps are rounded layer by layer, but their errors have either sign."""
    batch = small_batch()
    exact = built(config)
    rounded = built(config)
    single = exact.loss(exact(batch), batch)
    with autocast("bf16", CPU):
        half = rounded.loss(rounded(batch), batch)
    assert single.terms.keys() == half.terms.keys()
    for name, term in single.terms.items():
        assert half.terms[name].dtype == torch.float32, name
        assert abs(half.terms[name].item() - term.item()) <= 4 * ROUNDING * abs(term.item()), name


@each_detector
def test_what_must_be_exact_is_in_single_precision(config):
    detector, batch = built(config), small_batch()
    with autocast("bf16", CPU):
        output = detector(batch)
        losses = detector.loss(output, batch)
        with torch.no_grad():
            found = detector.decode(output)
    # half precision is at work
    assert any(values.dtype == torch.bfloat16 for head in output.heads for values in head.maps.values())
    assert output.taps["encoder"].features.dtype == torch.float32
    assert output.taps["encoder"].positions.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in losses.terms.values())
    assert all(boxes.geometry.dtype == boxes.scores.dtype == torch.float32 for boxes in found)
    losses.total.backward()
    assert all(value.dtype == torch.float32 for value in detector.state_dict().values() if value.is_floating_point())
    assert all(parameter.grad.dtype == torch.float32 for parameter in detector.parameters())


@each_detector
def test_voxel_means_are_not_rounded(config):
    batch = small_batch()
    exact, rounded = built(config), built(config)
    with autocast("bf16", CPU):
        half = rounded(batch).taps["encoder"].features
    assert torch.equal(half, exact(batch).taps["encoder"].features)


@each_detector
def test_batch_statistics_of_rounded_maps_are_taken_in_single_precision(config):
    """The running mean moves by the mean of what the norm was given, as double precision has it."""
    detector, batch = built(config), small_batch()
    seen: dict[nn.Module, torch.Tensor] = {}
    norms = [layer for layer in detector.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
        layer.register_forward_pre_hook(lambda module, inputs: seen.update({module: inputs[0].detach().clone()}))
    with autocast("bf16", CPU):
        detector(batch)
    rounded = [layer for layer in norms if seen[layer].dtype == torch.bfloat16]
    assert rounded
    for layer in rounded:
        maps = seen[layer].double()
        torch.testing.assert_close(layer.running_mean.double(), maps.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.running_var.double(), maps.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-7)


def test_a_trained_detector_finds_the_same_boxes():
    """Trained on one frame until it knows its boxes: both precisions report them, the best ones within 5 cm and 0.05 of
    each other's scores.
    """
    torch.manual_seed(0)
    detector, batch = small_config().build(), small_batch(size=1)
    optimiser = torch.optim.Adam(detector.parameters(), lr=0.01)
    for _ in range(120):
        optimiser.zero_grad()
        detector.loss(detector(batch), batch).total.backward()
        optimiser.step()
    for layer in detector.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    detector(batch)
    frame = Frame("0", batch.points, batch.boxes[0])
    single, half = (
        predict(detector.for_inference(), [frame], precision=precision).boxes[0] for precision in ("32", "bf16")
    )
    for box, label in zip(batch.boxes[0].geometry, batch.boxes[0].labels, strict=True):
        best = []
        for found in (single, half):
            near = found[(found.labels == label) & ((found.geometry[:, :3] - box[:3]).norm(dim=1) < 0.5)]
            assert len(near) > 0
            best.append(near[0:1])
        assert (best[0].geometry - best[1].geometry).abs().max() < 0.05
        assert (best[0].scores - best[1].scores).abs().max() < 0.05
