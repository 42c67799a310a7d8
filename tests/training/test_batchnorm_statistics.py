from dataclasses import replace

import pytest
import torch

from lidistill.detectors.encoders.pillars import PillarEncoderConfig
from lidistill.training.batchnorm_statistics import MOST_BATCHES, batches_to_settle, settle
from tests.detectors.small import small_batch, small_config
from tests.detectors.test_second import small_config as small_second

BATCHES = [small_batch(seed) for seed in range(4)]
DETECTORS = {
    "one layer": small_config(),
    "two layers": replace(small_config(), encoder=PillarEncoderConfig(channels=8, hidden_channels=(6,))),
    "sparse": small_second(),
}


def norms(detector):
    return {
        name: module
        for name, module in detector.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    }


def seen(detector, batches: int, momentum: float = 0.01):
    for norm in norms(detector).values():
        norm.momentum = momentum
        norm.num_batches_tracked.fill_(batches)
    return detector


@pytest.mark.parametrize(
    ("batches", "momentum", "wanted"),
    [(0, 0.01, 0), (30, 0.01, 30), (200, 0.01, MOST_BATCHES), (459, 0.01, 0), (30, 0.5, 0), (1600, 0.05, 0)],
)
def test_as_many_batches_settle_as_were_trained_on_until_the_start_is_forgotten(batches, momentum, wanted):
    assert batches_to_settle(seen(small_config().build(), batches, momentum)) == wanted


@pytest.mark.parametrize("name", DETECTORS)
def test_settled_statistics_are_the_mean_of_those_of_the_batches(name):
    detector = DETECTORS[name].build().train()
    single = []
    for batch in BATCHES:
        for norm in norms(detector).values():
            norm.momentum = 1.0
        detector(batch)
        single.append(
            {key: (norm.running_mean.clone(), norm.running_var.clone()) for key, norm in norms(detector).items()}
        )
    seen(detector, 30)
    weights = {key: value.clone() for key, value in detector.named_parameters()}
    settle(detector, BATCHES)
    for key, norm in norms(detector).items():
        for own, place in ((norm.running_mean, 0), (norm.running_var, 1)):
            torch.testing.assert_close(
                own, torch.stack([of_batch[key][place] for of_batch in single]).mean(dim=0), rtol=1e-4, atol=1e-5
            )
        assert norm.momentum == 0.01
    assert all(torch.equal(value, weights[key]) for key, value in detector.named_parameters())
    assert detector.training


def test_a_norm_that_saw_no_row_keeps_what_it_had():
    detector = seen(small_second().build(), 30)
    empty = replace(BATCHES[0], points=BATCHES[0].points[:0], batch_index=BATCHES[0].batch_index[:0])
    before = {key: value.clone() for key, value in detector.encoder.state_dict().items() if "running" in key}
    settle(detector, [empty])
    assert all(torch.equal(detector.encoder.state_dict()[key], value) for key, value in before.items())
