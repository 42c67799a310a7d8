"""Parts of outputs in files: what comes back is what went in."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.outputs import FeatureMap, FeatureSet
from lidistill.training.cache_files import join, read_record, record_of, write_record
from lidistill.types import Boxes
from tests.distillation import fakes

CPU = torch.device("cpu")


def through_files(parts, folder, *, half=False, heads=()):
    """The parts of single frames after a stay on disk, side by side."""
    records = []
    for row, part in enumerate(parts):
        record = record_of(part)
        write_record(folder / f"{row}.npz", record.halved() if half else record)
        records.append(read_record(folder / f"{row}.npz"))
    return join(records, CPU, heads)


def frame_by_frame(part):
    """A map of a batch as maps of its frames."""
    return [replace(part, features=part.features[row : row + 1]) for row in range(len(part.features))]


def feature_map(features):
    return FeatureMap.at(features, (0.1, -3.3), (0.32, 0.16))


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """NaN and signed zeros included."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 3])
def test_a_map_comes_back_bit_for_bit_in_the_same_memory_order(layout, size, tmp_path):
    features = torch.randn(size, 5, 4, 6)
    features[0, 0, 0, :4] = torch.tensor([torch.nan, -0.0, torch.inf, 1e-42])
    part = feature_map(features.to(memory_format=layout))
    back = through_files(frame_by_frame(part), tmp_path)
    assert same_bits(back.features, part.features)
    assert back.features.stride() == part.features.stride()
    assert back.grid == part.grid


def test_the_maps_of_heads_come_back_with_their_description(tmp_path):
    for kind in ("anchor", "center"):
        heads = fakes.output(4, fakes.make_batch(), 1, kind=kind).heads
        frames = [
            tuple(replace(head, maps={name: m[row : row + 1] for name, m in head.maps.items()}) for head in heads)
            for row in range(2)
        ]
        back = through_files(frames, tmp_path, heads=[head.with_tensors({}, []) for head in heads])
        for one, other in zip(back, heads, strict=True):
            assert list(one.maps) == list(other.maps)
            assert all(same_bits(one.maps[name], other.maps[name]) for name in one.maps)
            assert replace(one, maps={}) == replace(other, maps={})


def test_heads_of_points_and_proposals_come_back_frame_by_frame(tmp_path):
    whole = fakes.point_output(4, fakes.make_batch((3, 5)), 1)
    heads = [head for stage in whole.stages for head in stage]
    frames = [
        tuple(
            head.with_tensors(
                {name: rows[head.batch_index == row] for name, rows in head.tensors().items()},
                [int((head.batch_index == row).sum())],
            )
            for head in heads
        )
        for row in range(2)
    ]
    back = through_files(frames, tmp_path, heads=frames[1])
    for one, other in zip(back, heads, strict=True):
        assert (one.num_frames, one.classes) == (other.num_frames, other.classes)
        assert torch.equal(one.batch_index, other.batch_index)
        assert all(same_bits(one.tensors()[name], rows) for name, rows in other.tensors().items())


@pytest.mark.parametrize("rows", [(4, 3), (0, 3), (3, 0), (0, 0), (2,)])
def test_a_set_comes_back_frame_by_frame(rows, tmp_path):
    index = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))
    count = sum(rows)
    for occupancy in (None, torch.arange(count)):
        part = FeatureSet(torch.randn(count, 3), index, torch.randn(count, 3), occupancy)
        columns = [
            (
                part.features[index == row],
                part.positions[index == row],
                None if occupancy is None else occupancy[index == row],
            )
            for row in range(len(rows))
        ]
        back = through_files(
            [FeatureSet(f, torch.zeros(len(f), dtype=torch.int64), p, o) for f, p, o in columns], tmp_path
        )
        assert torch.equal(back.batch_index, part.batch_index)
        assert same_bits(back.features, part.features)
        assert same_bits(back.positions, part.positions)
        assert occupancy is None if back.occupancy is None else same_bits(back.occupancy, occupancy)


def test_boxes_come_back_with_the_columns_they_had(tmp_path):
    geometry, labels, scores = torch.randn(2, 7), torch.tensor([0, 2]), torch.tensor([0.9, 0.1])
    part = [
        Boxes(geometry, labels, scores),
        Boxes.empty(with_scores=True),
        Boxes(geometry, labels, velocity=torch.randn(2, 2)),
    ]
    back = through_files([[boxes] for boxes in part], tmp_path)
    for one, other in zip(back, part, strict=True):
        for name in ("geometry", "labels", "scores", "velocity", "difficulty"):
            left, right = getattr(one, name), getattr(other, name)
            assert left is None if right is None else same_bits(left, right), name


def test_bfloat16_survives_though_numpy_has_none(tmp_path):
    part = feature_map(torch.randn(2, 3, 4, 5).bfloat16())
    for half in (False, True):
        back = through_files(frame_by_frame(part), tmp_path, half=half).features
        assert back.dtype == torch.bfloat16
        assert torch.equal(back, part.features)


def test_halving_rounds_maps_to_eleven_bits_and_leaves_sets_alone(tmp_path):
    features = torch.randn(2, 3, 16, 16) * 10
    back = through_files(frame_by_frame(feature_map(features)), tmp_path, half=True).features
    assert back.dtype == torch.float32
    assert not torch.equal(back, features)
    normal = features.abs() > 2**-14
    assert ((back - features).abs()[normal] <= 2**-11 * features.abs()[normal]).all()
    rows = FeatureSet(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), torch.randn(5, 3))
    assert torch.equal(through_files([rows], tmp_path, half=True).features, rows.features)


def test_a_map_too_large_for_float16_is_kept_as_it_is(tmp_path):
    features = torch.randn(2, 3, 4, 4)
    features[1, 0, 0, 0] = 7e4
    back = through_files(frame_by_frame(feature_map(features)), tmp_path, half=True).features
    assert torch.equal(back[1], features[1])
    assert torch.equal(back[0], features[0].half().float())


def test_halved_maps_take_half_the_space(tmp_path):
    record = record_of(feature_map(torch.randn(1, 16, 32, 32)))
    write_record(tmp_path / "full", record)
    write_record(tmp_path / "half", record.halved())
    assert (tmp_path / "half").stat().st_size < 0.55 * (tmp_path / "full").stat().st_size


def record_bytes(tmp_path) -> bytes:
    write_record(tmp_path / "whole", record_of(feature_map(torch.randn(1, 2, 8, 8))))
    return (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_counts_as_missing(share, tmp_path):
    content = record_bytes(tmp_path)
    (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
    assert read_record(tmp_path / "cut") is None


def test_a_flipped_bit_in_a_tensor_counts_as_missing(tmp_path):
    content = bytearray(record_bytes(tmp_path))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        entry = archive.getinfo("tensor features.npy")
    content[entry.header_offset + 300] ^= 1  # behind both headers, among 512 bytes of values
    (tmp_path / "flipped").write_bytes(content)
    assert read_record(tmp_path / "flipped") is None


def test_what_is_no_record_counts_as_missing(tmp_path):
    (tmp_path / "text").write_text("not an array")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "listed.npz", description=np.array("[]"))
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "folder").mkdir()
    for name in ("text", "array.npy", "other.npz", "listed.npz", "pickled.npy", "folder", "absent"):
        assert read_record(tmp_path / name) is None, name


def test_a_record_under_another_name_counts_as_missing(tmp_path):
    """The name stands for the teacher, the input and the part."""
    record = record_of(feature_map(torch.randn(1, 2, 8, 8)))
    for other in ("teacher/aa/other.neck.npz", "teacher/aa/frame.heads.npz", "another/aa/frame.neck.npz"):
        path = tmp_path / "teacher" / "aa" / "frame.neck.npz"
        write_record(path, record)
        assert read_record(path) is not None
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / other)
        assert read_record(tmp_path / other) is None
