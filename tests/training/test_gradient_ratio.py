"""How strongly methods pull."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lidistill.run_folder import RunFolder
from lidistill.training.fit import fit
from lidistill.training.gradient_ratio import pulls
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import Losses


def test_a_pull_is_the_ratio_of_gradient_norms():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    losses = Losses(
        {
            "class": 2 * weight.sum(),
            "box": weight.sum(),
            "itkd/one": weight[0] * 3,
            "itkd/two": weight[1] * 3,
            "rdd/feature": weight.sum() * 0,
        }
    )
    found = pulls(losses, [weight])
    assert set(found) == {"pull/itkd", "pull/rdd"}
    assert found["pull/itkd"].item() == pytest.approx(1.0)
    assert found["pull/rdd"].item() == 0.0
    assert weight.grad is None
    losses.total.backward()  # the graph is still there
    assert weight.grad.tolist() == [6.0, 6.0]


def test_parameters_that_a_method_does_not_reach_do_not_count():
    reached, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    losses = Losses({"class": reached.sum() + other.sum(), "logits/class": reached.sum()})
    assert pulls(losses, [reached, other])["pull/logits"].item() == pytest.approx(2**-0.5)


def test_a_plain_student_and_one_without_labels_have_no_pull():
    weight = nn.Parameter(torch.ones(1))
    assert pulls(Losses({"class": weight.sum()}), [weight]) == {}
    assert pulls(Losses({"logits/class": weight.sum()}), [weight]) == {}


class Distilled(nn.Module):
    """The tiny detector with a method whose loss is half the detection loss."""

    def __init__(self, detector):
        super().__init__()
        self.student = detector

    def forward(self, batch, progress=1.0):
        own = self.student.loss(self.student(batch), batch)
        return own + Losses({"method/half": 0.5 * own.total})


def test_the_log_says_how_strongly_a_method_pulls(tiny_detector, tiny_frames, tmp_path):
    settings = TrainingSettings(steps=8, batch_size=2, log_every=2, save_every=100, pull_every=4)
    fit(Distilled(tiny_detector), tiny_frames, settings, RunFolder(tmp_path), seed=0, name="tiny", device="cpu")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = {row["step"]: row["pull/method"] for row in rows if "pull/method" in row}
    assert found == {4: pytest.approx(0.5), 8: pytest.approx(0.5)}
