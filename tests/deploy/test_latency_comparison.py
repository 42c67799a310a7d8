from importlib import import_module
from itertools import pairwise

import pytest
import torch
from torch import nn

from lidistill.deploy import latency_comparison
from lidistill.deploy.latency_comparison import LEAST_TURNS, MOST_TURNS, WARM_UP, take_turns
from lidistill.types import Frame, InputError


class Notes(nn.Module):
    """A detector that finds nothing and notes who was asked about which frame."""

    def __init__(self, name, asked):
        super().__init__()
        self.name, self.asked = name, asked

    def prepare(self, batch):
        return None

    def forward(self, batch, inputs=None):
        self.asked.append((self.name, batch.frame_ids[0], self.training, torch.get_num_threads()))

    def decode(self, output):
        return []


FRAMES = [Frame(name, torch.zeros(3, 4)) for name in ("a", "b", "c")]


def taken(budget_s):
    asked = []
    detectors = {name: Notes(name, asked).train() for name in ("teacher", "plain", "distilled")}
    found = take_turns(detectors, dict.fromkeys(detectors, FRAMES), threads=1, budget_s=budget_s)
    return asked, detectors, found


def test_every_detector_takes_every_frame_in_turns_that_change_direction():
    asked, detectors, found = taken(0.0)
    names = [name for name, *_ in asked]
    rounds = [names[at : at + 3] for at in range(0, len(names), 3)]
    assert len(rounds) == WARM_UP + LEAST_TURNS
    assert all(sorted(each) == sorted(detectors) for each in rounds)
    assert all(first == second[::-1] for first, second in pairwise(rounds))
    frames = [frame for _, frame, *_ in asked]
    assert all(len(set(frames[at : at + 3])) == 1 for at in range(0, len(frames), 3))
    assert set(frames) == {"a", "b", "c"}
    assert {training for *_, training, _ in asked} == {False}
    assert all(detector.training for detector in detectors.values())
    assert {len(times) for stages in found.values() for times in stages.values()} == {LEAST_TURNS}
    assert set(found["teacher"]) == {"total", "prepare", "network", "decode"}


def test_turns_go_on_while_there_is_time_but_not_for_ever():
    _, _, found = taken(1e9)
    assert len(found["plain"]["total"]) == MOST_TURNS


def test_a_slow_moment_falls_on_a_turn_and_not_on_a_detector(monkeypatch):
    """The clock runs three times as fast for a while; what takes the same time still comes out equal."""
    now, ticks = [0.0], [0]

    def clock():
        ticks[0] += 1
        now[0] += 3.0 if 40 < ticks[0] < 80 else 1.0
        return now[0]

    monkeypatch.setattr(import_module("lidistill.deploy.profile"), "perf_counter", clock)
    monkeypatch.setattr(latency_comparison, "perf_counter", lambda: 0.0)
    _, _, found = taken(0.0)
    ratios = sorted(one / other for one, other in zip(found["teacher"]["total"], found["plain"]["total"], strict=True))
    assert ratios[len(ratios) // 2] == 1.0


def test_what_cannot_be_timed_is_named():
    with pytest.raises(InputError, match="at least one detector"):
        take_turns({}, {})
    with pytest.raises(InputError, match="equally many frames"):
        take_turns({"a": Notes("a", []), "b": Notes("b", [])}, {"a": FRAMES, "b": FRAMES[:1]})
