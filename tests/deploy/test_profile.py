import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lidistill.deploy import profile
from lidistill.deploy.profile import STAGES, device_name
from lidistill.types import Batch, Boxes, Frame, InputError


class FakeDetector(nn.Module):
    """Points to a row per occupied column of a coarse grid, a linear encoder, a 3x3 convolution, two 1x1 heads in a
    list.
    """

    def __init__(self, cells: int = 8) -> None:
        super().__init__()
        self.cells = cells
        self.encoder = nn.Linear(4, 16, bias=False)
        self.backbone = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.heads = nn.ModuleList([nn.Conv2d(32, 6, 1), nn.Conv2d(32, 14, 1)])
        self.calls: list[str] = []

    def prepare(self, batch: Batch):
        self.calls.append("prepare")
        return SimpleNamespace(points=batch.points[: len(batch.points) // 2])

    def forward(self, batch: Batch, inputs=None):
        self.calls.append("network")
        assert not self.training
        rows = self.encoder(inputs.points[:, :4])
        canvas = rows.new_zeros(1, 16, self.cells, self.cells) + rows.sum() * 0
        return [head(self.backbone(canvas)) for head in self.heads]

    def decode(self, output):
        self.calls.append("decode")
        return [Boxes.empty(with_scores=True)]


def frame(points: int) -> Frame:
    return Frame(f"{points}", torch.rand(points, 4))


# Encoder: half of the points, 4 x 16 each. Backbone: runs once a head, 64 cells, 9 taps, 16 x 32. Heads: 64 cells, 32 x
# (6 + 14).
BACKBONE = 2 * 64 * 9 * 16 * 32
HEADS = 64 * 32 * (6 + 14)


def test_multiply_accumulates_are_those_counted_by_hand():
    cost = profile(FakeDetector(), [frame(100)], repeats=1)
    assert cost.macs_by_part == {"encoder": 50 * 4 * 16, "backbone": BACKBONE, "heads": HEADS, "other": 0}
    assert cost.macs == 50 * 4 * 16 + BACKBONE + HEADS


def test_the_data_dependent_part_is_the_mean_over_the_frames():
    cost = profile(FakeDetector(), [frame(100), frame(300)], repeats=1)
    assert cost.macs_by_part["encoder"] == 100 * 4 * 16
    assert cost.points_per_frame == 200
    assert cost.frames == 2


class Strided(FakeDetector):
    """Operators the detectors use, with a product outside the parts."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.weight = nn.Parameter(torch.rand(5, 3))

    def forward(self, batch, inputs=None):
        image = self.up(self.down(torch.ones(1, 4, 12, 10)))
        return image.flatten(2)[0].T @ self.weight


def test_strided_and_transposed_convolutions_and_bare_products_are_counted():
    cost = profile(Strided(), [frame(2)], repeats=1)
    assert cost.macs_by_part["down"] == 6 * 5 * 9 * 4 * 8
    assert cost.macs_by_part["up"] == 6 * 5 * 4 * 8 * 5  # each input cell writes a 2x2 block
    assert cost.macs_by_part["other"] == 120 * 5 * 3
    assert cost.macs == sum(cost.macs_by_part.values())


def test_parameters_are_counted_once_when_shared():
    detector = FakeDetector()
    detector.twin = detector.encoder
    cost = profile(detector, [frame(10)], repeats=1)
    assert cost.parameters == 4 * 16 + 16 * 32 * 9 + 2 * 32 + (32 * 6 + 6) + (32 * 14 + 14)


def test_every_stage_runs_in_turn_and_is_timed():
    detector = FakeDetector()
    cost = profile(detector, [frame(10), frame(20)], repeats=3)
    counted = ["prepare", "network"] * 2  # once a frame, without decoding
    assert detector.calls[:4] == counted
    passes = detector.calls[4:]
    assert passes == list(STAGES) * (len(passes) // 3)
    assert len(passes) // 3 > 2 * 3  # repeats on each frame, and a warm-up
    assert set(cost.latency_ms) == {"total", *STAGES}
    for times in cost.latency_ms.values():
        assert 0 <= times["p50"] <= times["p95"]
    assert cost.latency_ms["total"]["p50"] >= max(cost.latency_ms[stage]["p50"] for stage in STAGES)


def test_a_detector_that_reads_points_has_no_voxels():
    class PointDetector(FakeDetector):
        def prepare(self, batch):
            return None

        def forward(self, batch, inputs=None):
            assert inputs is None
            return self.encoder(batch.points)

    assert profile(PointDetector(), [frame(30)], repeats=1).macs == 30 * 4 * 16


def test_a_frame_without_points_costs_the_dense_part():
    assert profile(FakeDetector(), [frame(0)], repeats=1).macs == BACKBONE + HEADS


def test_mode_weights_and_threads_are_as_before():
    detector = FakeDetector().train()
    detector.backbone.eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    threads = torch.get_num_threads()
    cost = profile(detector, [frame(10)], repeats=1, threads=2)
    assert cost.threads == 2
    assert torch.get_num_threads() == threads
    assert detector.training
    assert detector.encoder.training
    assert not detector.backbone.training
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_mode_and_threads_are_restored_after_an_error():
    detector = FakeDetector().train()
    detector.decode = lambda output: 1 / 0
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        profile(detector, [frame(10)], repeats=1, threads=threads + 1)
    assert detector.training
    assert torch.get_num_threads() == threads


def test_memory_on_a_cpu_is_not_claimed():
    cost = profile(FakeDetector(), [frame(10)], repeats=1)
    assert cost.peak_memory_bytes is None
    assert cost.device == device_name("cpu") != ""


def test_the_record_is_plain_json_with_its_conditions():
    cost = profile(FakeDetector(), [frame(10)], repeats=2)
    record = json.loads(json.dumps(cost.to_dict(), allow_nan=False))
    assert record["macs"] == cost.macs
    assert record["latency_ms"]["total"].keys() == {"p50", "p95"}
    assert record["repeats"] == 2
    assert record["torch"] == torch.__version__


def test_no_frames_or_no_repeats_are_refused():
    with pytest.raises(InputError, match="no frames"):
        profile(FakeDetector(), [])
    with pytest.raises(InputError, match="repeats is 0"):
        profile(FakeDetector(), [frame(1)], repeats=0)
    with pytest.raises(InputError, match="threads is 0"):
        profile(FakeDetector(), [frame(1)], threads=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_on_a_gpu_includes_the_weights():
    class OnGpu(FakeDetector):
        def forward(self, batch, inputs=None):
            assert batch.points.is_cuda
            return super().forward(batch, inputs)

    cost = profile(OnGpu(), [frame(10)], device="cuda", repeats=1)
    assert cost.peak_memory_bytes >= 4 * cost.parameters
    assert cost.device == torch.cuda.get_device_name()
