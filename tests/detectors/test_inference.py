"""The form of a detector that is made for prediction: its outputs, to rounding, from weights that hold the norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lidistill.detectors.detector import Detector
from lidistill.detectors.encoders.sparse_blocks import RowNorm, SparseConvolution
from lidistill.detectors.folding import folded
from lidistill.ops.kernels.sparse_convolution import Sites, submanifold_map
from lidistill.outputs import DetectorOutput
from tests.detectors.small import small_batch, small_config
from tests.detectors.test_centerpoint import FORMS
from tests.detectors.test_second import small_config as small_second

CONFIGS = {
    "pointpillars": small_config(),
    "second": small_second(),
    **{f"centerpoint on {name}": form for name, form in FORMS.items()},
}
each_detector = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def lived_in(module: nn.Module) -> None:
    """Statistics, scales and shifts far from their start, some scales below 0."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.05, 2.0)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.3)


def tensors_of(output: DetectorOutput) -> dict[str, torch.Tensor]:
    """Taps and heads by name."""
    taps = {name: tap.features for name, tap in output.taps.items()}
    return taps | {
        f"head.{index}.{name}": values for index, head in enumerate(output.heads) for name, values in head.maps.items()
    }


def built(config) -> Detector:
    detector = config.build().eval()
    lived_in(detector)
    return detector


@each_detector
def test_all_taps_and_heads_are_the_same_to_rounding(config):
    """Within 5e-6 of the largest value of the map: some tens of roundings of single precision, for as many layers."""
    detector, batch = built(config), small_batch()
    with torch.no_grad():
        plain, folded_maps = tensors_of(detector(batch)), tensors_of(detector.for_inference()(batch))
    assert plain.keys() == folded_maps.keys()
    for name, expected in plain.items():
        assert folded_maps[name].shape == expected.shape
        assert (folded_maps[name] - expected).abs().max() <= 5e-6 * expected.abs().max(), name


@each_detector
def test_in_double_precision_they_are_the_same(config):
    detector = built(config).double()
    batch = small_batch()
    voxels = detector.prepare(batch)
    voxels = type(voxels)(**{**vars(voxels), "points": voxels.points.double()})
    with torch.no_grad():
        plain, folded_maps = tensors_of(detector(batch, voxels)), tensors_of(detector.for_inference()(batch, voxels))
    for name, expected in plain.items():
        torch.testing.assert_close(folded_maps[name], expected, rtol=1e-10, atol=1e-12)


@each_detector
def test_no_norm_of_maps_is_left_and_nothing_of_the_detector_changes(config):
    detector = built(config).train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    twin = detector.for_inference()
    assert not any(isinstance(layer, nn.BatchNorm2d | RowNorm) for layer in twin.modules())
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert detector.training and all(parameter.requires_grad for parameter in detector.parameters())
    assert before.keys() == detector.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


LAYERS = {
    "a convolution": nn.Conv2d(3, 5, 3, padding=1, bias=False),
    "a convolution with a bias": nn.Conv2d(3, 5, 3, padding=1),
    "a transposed convolution": nn.ConvTranspose2d(3, 5, 2, 2, bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_with_its_norm_folded_gives_what_both_gave(name):
    layer, norm = LAYERS[name].double(), nn.BatchNorm2d(5).double().eval()
    lived_in(norm)
    maps = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    expected = norm(layer(maps))
    torch.testing.assert_close(folded(layer, norm)(maps), expected)


def test_a_sparse_convolution_with_its_norm_folded_gives_what_both_gave():
    layer, norm = SparseConvolution(3, 5).double(), RowNorm(5).double().eval()
    lived_in(norm)
    sites = Sites(torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 2, 1, 0]]), (3, 3, 3), 1)
    rows, around = torch.randn(3, 3, dtype=torch.float64), submanifold_map(sites, (3, 3, 3))
    expected = norm(layer(rows, around))
    torch.testing.assert_close(folded(layer, norm)(rows, around), expected)
