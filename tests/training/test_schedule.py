"""The optimiser, and the one-cycle schedule down to runs of a single step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lidistill.training.schedule import build_optimizer, build_schedule
from lidistill.training.training_settings import TrainingSettings


def rates(total_steps: int, **settings) -> list[float]:
    """The learning rate of every step."""
    chosen = TrainingSettings(learning_rate=1.0, **settings)
    optimizer = build_optimizer(nn.Linear(1, 1), chosen)
    schedule = build_schedule(optimizer, chosen, total_steps)
    found = []
    for _ in range(total_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.2, 1 / 3, 0.4, 0.5, 0.999])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 4, 5, 10, 100])
def test_every_rate_is_finite_and_at_most_the_peak(total_steps, share):
    found = rates(total_steps, warmup_share=share)
    assert all(math.isfinite(rate) and 0 < rate <= 1 for rate in found)


@pytest.mark.parametrize("total_steps, share", [(1, 0.4), (2, 0.4), (5, 0.2), (10, 0.1), (100, 0.01), (100, 1e-6)])
def test_a_warm_up_of_one_step_or_less_starts_at_the_peak(total_steps, share):
    found = rates(total_steps, warmup_share=share)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found == sorted(found, reverse=True)


def test_a_longer_warm_up_climbs_from_the_first_rate_to_the_peak_and_falls_to_the_last():
    found = rates(100, warmup_share=0.4, start_divisor=10, end_divisor=1e4)
    assert found[0] == pytest.approx(0.1)
    assert found[39] == pytest.approx(1)
    assert found[-1] == pytest.approx(1e-5)
    assert found[:40] == sorted(found[:40])
    assert found[39:] == sorted(found[39:], reverse=True)


def test_the_schedule_of_long_runs_is_pytorchs():
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=50, pct_start=0.3, div_factor=10, final_div_factor=1e4
    )
    expected = []
    for _ in range(50):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates(50, warmup_share=0.3) == expected


@pytest.mark.parametrize(("precision", "fused"), [("32", True), ("bf16", True), ("fp16", False)])
def test_scaled_gradients_are_unscaled_before_they_are_clipped(precision, fused):
    """A fused optimiser unscales by itself, after clipping: with fp16, whose gradients are scaled, it must not be
    fused.
    """
    assert build_optimizer(nn.Linear(2, 2), TrainingSettings(precision=precision)).defaults["fused"] is fused


def test_a_fused_step_is_that_of_the_plain_optimiser():
    twins = [nn.Linear(5, 3), nn.Linear(5, 3)]
    twins[1].load_state_dict(twins[0].state_dict())
    settings = TrainingSettings()
    ours = build_optimizer(twins[0], settings)
    plain = torch.optim.AdamW(
        twins[1].parameters(),
        lr=settings.learning_rate / settings.start_divisor,
        betas=(settings.momentum[0], settings.beta2),
        weight_decay=settings.weight_decay,
        foreach=False,
    )
    for _ in range(5):
        gradients = [torch.randn_like(parameter) for parameter in twins[0].parameters()]
        for twin, optimizer in zip(twins, (ours, plain), strict=True):
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for one, other in zip(twins[0].parameters(), twins[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
