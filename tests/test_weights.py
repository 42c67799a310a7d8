"""Weights from a file: what is not whole, finite and dense is named before a network sees it."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from lidistill.interop import read_checkpoint
from lidistill.training.checkpoint import FORMAT, read_weights, save_weights
from lidistill.types import InputError
from lidistill.weights import check_places, checked_weights, load_tensors


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


FAULTS = {
    "a number": (3.0, "is of type float, not a tensor"),
    "a text": ("x", "is of type str, not a tensor"),
    "none": (None, "is of type NoneType, not a tensor"),
    "sparse": (torch.eye(8, 4).to_sparse(), "is a sparse, nested or quantised tensor"),
    "meta": (torch.zeros((8, 4), device="meta"), r"has no values \(a meta tensor\)"),
    "complex": (torch.zeros((8, 4), dtype=torch.complex64), "has values of type complex64"),
    "repeated": (torch.zeros(1).expand(8, 10**9), "has fewer values than its shape says"),
    "nan": (torch.full((8, 4), float("nan")), "has 32 values that are not finite"),
    "infinite": (torch.tensor([[float("-inf")] + 3 * [0.0]] * 8), "has 8 values that are not finite"),
    "infinite half": (torch.full((8, 4), float("inf")).half(), "has 32 values that are not finite"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_weight_that_is_none_is_named_in_own_and_foreign_files(tmp_path, name):
    value, problem = FAULTS[name]
    state = {**network().state_dict(), "0.weight": value}
    with pytest.raises(InputError, match=f"file: 0.weight {problem}.*; try again"):
        checked_weights(state, "file", "try again")
    torch.save({"format": FORMAT, "state": state}, tmp_path / "own.pt")
    with pytest.raises(InputError, match=f"own.pt: 0.weight {problem}"):
        read_weights(tmp_path / "own.pt")
    if isinstance(value, torch.Tensor):
        torch.save({"model_state": {"vfe.weight": torch.zeros(1), "backbone_2d.weight": value}}, tmp_path / "other.pth")
        with pytest.raises(InputError, match=f"other.pth: backbone_2d.weight {problem}"):
            read_checkpoint(tmp_path / "other.pth")


def test_a_variance_below_zero_is_named(tmp_path):
    detector = network()
    detector[1].running_var[3] = -1e-3
    save_weights(tmp_path / "own.pt", detector)
    with pytest.raises(InputError, match="own.pt: 1.running_var has a negative variance"):
        read_weights(tmp_path / "own.pt")


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    detector = network()
    path = tmp_path / "checkpoint.pt"
    save_weights(path, detector)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(8 * len(content), size=600, replace=False):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bytes(changed))
        try:
            found = read_weights(path)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert all(torch.equal(found[key], value) for key, value in detector.state_dict().items())
    assert refused
    # Where the weights themselves lie, each flip is found.
    with zipfile.ZipFile(tmp_path / "checkpoint.pt", "r") as archive:
        weights = max(archive.infolist(), key=lambda item: item.file_size if "/data/" in item.filename else 0)
    start = content.index(next(iter(detector.state_dict().values())).numpy().tobytes())
    for place in range(8 * start, 8 * (start + weights.file_size), 7):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bytes(changed))
        with pytest.raises(InputError, match="damaged|not finite"):
            read_weights(path)


def test_weights_of_earlier_versions_have_no_digest_and_are_read(tmp_path):
    state = network().state_dict()
    torch.save({"format": FORMAT, "state": state}, tmp_path / "old.pt")
    assert all(torch.equal(value, state[key]) for key, value in read_weights(tmp_path / "old.pt").items())


@pytest.mark.parametrize(
    "content",
    [
        3,
        [1],
        {"format": FORMAT},
        {"format": FORMAT, "state": [1]},
        {"format": FORMAT, "state": {1: torch.zeros(1)}},
        {},
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: (not a lidistill checkpoint|holds no named weights)"):
        read_weights(tmp_path / "a.pt")


def test_a_compressed_file_is_not_unpacked(tmp_path):
    torch.save({"format": FORMAT, "state": {"a": torch.zeros(10**6)}}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
    with pytest.raises(InputError, match="b.pt: compressed or encrypted"):
        read_weights(tmp_path / "b.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_weights, read_checkpoint):
        with pytest.raises(InputError, match="pipe: not a regular file"):
            read(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file; try again"):
        load_tensors(tmp_path / "pipe", "try again")


def test_names_and_shapes_are_compared():
    own = network().state_dict()
    check_places(own, own, "file", "try again")
    other = {**own, "0.weight": torch.zeros(3), "new": torch.zeros(1)}
    del other["2.bias"]
    with pytest.raises(
        InputError,
        match=r"file: does not fit this detector \(0.weight is \(3,\) where \(8, 4\) is needed; missing "
        r"2.bias; unknown new\)",
    ):
        check_places(other, own, "file", "try again")
