"""Scans, labels, calibrations and results that tools and transfers have spoiled."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.hostile import spoil

WORDS = ("nan", "-inf", "1e400", "x", "", "0x10", "١", "1,5", "--", "1e39", "-0", "9" * 400, "Car", "\u200b", "\x00")


def one_word_changed(path: Path, draws: random.Random) -> str:
    """Put one of WORDS in place of a word of one line; returns that word."""
    lines = path.read_text().splitlines()
    rows = [row for row, line in enumerate(lines) if line.split()]
    row = draws.choice(rows)
    words = lines[row].split()
    place = draws.randrange(len(words))
    words[place] = draws.choice(WORDS)
    lines[row] = " ".join(words)
    path.write_text("\n".join(lines) + "\n")
    return words[place]


def filled(folder: Path) -> Path:
    """The first text file of a folder that is not empty."""
    return next(path for path in sorted(folder.glob("*.txt")) if path.read_text().strip())


# The files that a score is made of, by the folder of a KITTI recording that holds them.
TEXTS = {"labels": "training/label_2", "calibration": "training/calib", "results": "."}


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", TEXTS)
def test_a_word_changed_in_a_text_is_refused_or_scored(lidistill, good, spoiled, kind, seed):
    kitti, results = (good.kitti, spoiled(good.results)) if kind == "results" else (spoiled(good.kitti), good.results)
    path = filled((results if kind == "results" else kitti) / TEXTS[kind])
    one_word_changed(path, random.Random(seed))
    ended = lidistill("evaluate", "--predictions", results, "--data", f"kitti:{kitti}", "--split", "all").check()
    assert ended.code == 0 or path.name in ended.sentence


@pytest.mark.parametrize("how", spoil.ANY, ids=spoil.named)
@pytest.mark.parametrize("part", ["label_2", "calib"])
def test_a_spoiled_text_of_a_recording(lidistill, good, spoiled, part, how):
    kitti = spoiled(good.kitti)
    path = filled(kitti / "training" / part)
    how(path, random.Random(f"{part} {how.__name__}"))
    ended = lidistill("evaluate", "--predictions", good.results, "--data", f"kitti:{kitti}", "--split", "all").check()
    assert ended.code == 0 or path.name in ended.sentence


@pytest.mark.parametrize("how", spoil.ANY, ids=spoil.named)
def test_a_spoiled_scan(lidistill, good, spoiled, tmp_path, how):
    scan = spoiled(next((good.kitti / "training" / "velodyne").glob("*.bin")))
    how(scan, random.Random(how.__name__))
    ended = lidistill("predict", good.teacher, scan, "--out", tmp_path / "boxes").check()
    assert ended.code == 0 or scan.name in ended.sentence


SCANS = {
    "NaN": np.full((100, 4), np.nan),
    "infinite": np.full((100, 4), np.inf),
    "huge": np.full((100, 4), 3e38),
    "tiny": np.full((100, 4), 1e-45),
    "one place": np.ones((100_000, 4)),
    "one point": np.ones((1, 4)),
    "out of range": np.full((100, 4), 1e4),
    "negative intensity": np.full((100, 4), -1e30),
}


@pytest.mark.parametrize("how", SCANS)
def test_a_scan_of_strange_numbers(lidistill, good, tmp_path, how):
    SCANS[how].astype("<f4").tofile(tmp_path / "scan.bin")
    ended = lidistill("predict", good.teacher, tmp_path / "scan.bin", "--out", tmp_path / "boxes").check()
    assert ended.code == 0 or "scan.bin" in ended.sentence


@pytest.mark.battery
@pytest.mark.parametrize(
    "name",
    [
        "$x$.bin",
        "a b.bin",
        "ä.bin",
        "-.bin",
        "%s.bin",
        "{x}.bin",
        "[bold].bin",
        "$\\frac{.bin",
        b"\xff\xfe.bin".decode("utf-8", "surrogateescape"),
    ],
)
def test_a_scan_of_a_strange_name_is_drawn(lidistill, good, tmp_path, name):
    (tmp_path / "scans").mkdir()
    np.ones((10, 4), dtype="<f4").tofile(tmp_path / "scans" / name)
    ended = lidistill("predict", good.teacher, tmp_path / "scans", "--out", tmp_path / "boxes").check()
    assert ended.code == 0 or ".bin" in ended.sentence


LISTS = {
    "twice": "000000\n000000\n",
    "upwards": "../../000000\n",
    "nothing": "",
    "unknown": "999999\n",
    "binary": "\x00\x01\x02",
    "long": "0" * 5000,
    "comments alone": "# nothing\n",
    "spaces": "000000 000001\n",
}


@pytest.mark.parametrize("how", LISTS)
def test_a_strange_list_of_frames(lidistill, good, spoiled, how):
    kitti = spoiled(good.kitti)
    (kitti / "ImageSets" / "odd.txt").write_text(LISTS[how])
    lidistill("evaluate", "--predictions", good.results, "--data", f"kitti:{kitti}", "--split", "odd").refused()


def test_very_many_results_of_a_frame_are_scored_in_bounded_memory(lidistill, good, spoiled):
    results = spoiled(good.results)
    path = filled(results)
    row = path.read_text().splitlines()[0]
    path.write_text(f"{row}\n" * 30_000)
    lidistill(
        "evaluate", "--predictions", results, "--data", f"kitti:{good.kitti}", "--split", "all", seconds=60
    ).check()


CHECKPOINTS = [
    "noise",
    "zip",
    "pickle",
    "numbers",
    "text",
    "sparse",
    "meta",
    "nan",
    "nested",
    "empty",
    "pipe",
    "folder",
    "20 GB",
]


@pytest.mark.parametrize("how", CHECKPOINTS)
@pytest.mark.parametrize("source", ["openpcdet", "mmdet3d"])
def test_a_strange_checkpoint_is_refused(lidistill, good, tmp_path, source, how):
    import pickle
    import zipfile

    import torch

    path = tmp_path / "model.pth"
    key = "model_state" if source == "openpcdet" else "state_dict"
    states = {
        "numbers": {"a": 1.0, "b": 2},
        "text": {"a": "weights"},
        "sparse": {"a.weight": torch.eye(4).to_sparse()},
        "meta": {"a.weight": torch.zeros(4, device="meta")},
        "nan": {"backbone.weight": torch.full((4,), float("nan"))},
        "nested": {"a": {"b": {"c": torch.zeros(1)}}},
        "empty": {},
    }
    if how in states:
        torch.save({key: states[how]}, path)
    elif how == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model/data.pkl", b"not a pickle")
    elif how == "pickle":
        path.write_bytes(pickle.dumps({key: {"a": 1}}))
    else:
        path.write_bytes(b"x")
        {"noise": spoil.noise, "pipe": spoil.pipe, "folder": spoil.folder, "20 GB": spoil.huge}[how](
            path, random.Random(how)
        )
    words = ("--from", source, "--model", "pointpillars", "--data", f"kitti:{good.kitti}", "--out", tmp_path / "new")
    lidistill("import", path, *words).refused("model.pth")
    assert not (tmp_path / "new").exists()
