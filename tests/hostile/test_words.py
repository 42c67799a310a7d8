"""Words of the command line that make no sense, and folders that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

RUN, STUDENT, KITTI, RESULTS, NEW = "RUN", "STUDENT", "KITTI", "RESULTS", "NEW"

CASES: list[tuple[str, ...]] = [
    ("train", "pointpillar", "--out", NEW),
    ("train", "", "--out", NEW),
    ("train", "nowhere/run", "--out", NEW),
    ("train", "pointpillars", "--data", "somewhere:/x", "--out", NEW),
    ("train", "pointpillars", "--data", "kitti:", "--out", NEW),
    ("train", "pointpillars", "--data", "kitti:/nowhere", "--out", NEW),
    ("train", "pointpillars", "--data", "", "--out", NEW),
    ("train", "pointpillars", "--data", "kitti:a\x00b", "--out", NEW),
    ("train", RUN, "--compression", "inf", "--out", NEW),
    ("train", RUN, "--compression", "nan", "--out", NEW),
    ("train", RUN, "--compression", "0", "--out", NEW),
    ("train", RUN, "--compression", "-4", "--out", NEW),
    ("train", RUN, "--compression", "1e300", "--out", NEW),
    ("train", RUN, "--out", RUN),
    ("train", RUN, "--seed", "-1", "--out", NEW),
    ("train", RUN, "--seed", "99999999999999999999999", "--out", NEW),
    ("train", RUN, "--device", "mps", "--out", NEW),
    ("train", RUN, "--device", "xpu", "--out", NEW),
    ("train", RUN, "--device", "meta", "--out", NEW),
    ("train", RUN, "--device", "gpu", "--out", NEW),
    ("train", RUN, "--device", "cuda:-5", "--out", NEW),
    ("train", RUN, "--device", "", "--out", NEW),
    ("distill", "nowhere", "--out", NEW),
    ("distill", "pointpillars", "--out", NEW),
    ("distill", RUN, "--method", "pointdistiler", "--out", NEW),
    ("distill", RUN, "--method", "", "--out", NEW),
    ("distill", RUN, "--method", "logits,itkd", "--out", NEW),
    ("distill", RUN, "--method", "logits", "--method", "logits", "--out", NEW),
    ("distill", RUN, "--method", "none", "--out", NEW),
    ("distill", RUN, "--compression", "0", "--out", NEW),
    ("distill", RUN, "--compression", "inf", "--out", NEW),
    ("compare", RUN, "--method", "nothing", "--out", NEW),
    ("compare", RUN, "--method", "logits+", "--out", NEW),
    ("compare", RUN, "--method", "logits,itkd", "--out", NEW),
    ("compare", RUN, "--seeds", "0", "--out", NEW),
    ("compare", RUN, "--seeds", "-3", "--out", NEW),
    ("compare", RUN, "--seeds", "1000000000", "--out", NEW),
    ("compare", RUN, "--processes", "0", "--out", NEW),
    ("compare", RUN, "--compression", "0", "--out", NEW),
    ("compare", RUN, "--compression", "nan", "--out", NEW),
    ("compare", "nowhere.yaml", "--out", NEW),
    ("compare", RUN, "--teacher", RUN, "--out", NEW),
    ("evaluate",),
    ("evaluate", "nowhere"),
    ("evaluate", RUN, "--split", "holiday"),
    ("evaluate", RUN, "--split", "../../etc"),
    ("evaluate", RUN, "--device", "meta"),
    ("evaluate", "--predictions", RESULTS),
    ("evaluate", "--predictions", "nowhere", "--data", KITTI),
    ("evaluate", "--predictions", RESULTS, "--data", "kitti:/nowhere"),
    ("predict", RUN, "nowhere", "--out", NEW),
    ("predict", "nowhere", "nowhere", "--out", NEW),
    ("predict", RUN, RESULTS, "--out", NEW),
    ("predict", RUN, RUN, "--out", NEW),
    ("import", "nowhere.pth", "--from", "openpcdet", "--model", "pointpillars", "--data", KITTI, "--out", NEW),
    ("import", "nowhere.pth", "--from", "somewhere", "--model", "pointpillars", "--data", KITTI, "--out", NEW),
    ("import", "nowhere.pth", "--from", "openpcdet", "--model", "some", "--data", KITTI, "--out", NEW),
    ("report", "nowhere", "--out", NEW),
    ("report", RUN, "nowhere", "--out", NEW),
    ("report", RUN, RUN, "--out", NEW),
    ("simulate", NEW, "--frames", "0"),
    ("simulate", NEW, "--frames", "-5"),
    ("simulate", NEW, "--frames", "1000000000000"),
    ("simulate", NEW, "--preset", "eye"),
    ("simulate", NEW, "--seed", "-1"),
    ("simulate", NEW, "--workers", "-1"),
    ("methods", "nothing"),
    ("methods", "rdd", "--markdown"),
    ("demo", "--out", NEW, "--seed", "-1"),
    ("demo", "--out", NEW, "training.steps=-5"),
    ("demo", "--out", NEW, "--device", "xpu"),
]


def filled(word: str, good, new: Path) -> str:
    places = {RUN: good.teacher, STUDENT: good.student, KITTI: f"kitti:{good.kitti}", RESULTS: good.results, NEW: new}
    return str(places.get(word, word))


@pytest.mark.parametrize("words", CASES, ids=lambda words: " ".join(words)[:80])
def test_words_without_sense_are_refused(lidistill, good, tmp_path, words):
    new = tmp_path / "new"
    lidistill(*(filled(word, good, new) for word in words)).refused()
    assert not new.exists()


def below_a_file(base: Path) -> Path:
    (base / "file").write_text("kept")
    return base / "file" / "below"


def a_file(base: Path) -> Path:
    (base / "file").write_text("kept")
    return base / "file"


def a_link_to_itself(base: Path) -> Path:
    (base / "loop").symlink_to(base / "loop")
    return base / "loop"


def a_long_name(base: Path) -> Path:
    return base / ("x" * 300)


def no_such_device(base: Path) -> Path:
    return Path("/proc/nothing/here")


def a_pipe(base: Path) -> Path:
    os.mkfifo(base / "pipe")
    return base / "pipe"


PLACES = (below_a_file, a_file, a_link_to_itself, a_long_name, no_such_device, a_pipe)
WRITING: dict[str, tuple[str, ...]] = {
    "train": ("train", RUN, "--out"),
    "distill": ("distill", RUN, "--no-certificate", "--method", "logits", "--out"),
    "compare": ("compare", RUN, "--method", "logits", "--seeds", "1", "--no-certificate", "--out"),
    "report": ("report", RUN, STUDENT, "--out"),
    "predict": ("predict", RUN, "SCANS", "--out"),
    "simulate": ("simulate", "--frames", "1"),
    "demo": ("demo", "--out"),
    "evaluate": ("evaluate", "--predictions", RESULTS, "--data", KITTI, "--split", "all", "--out"),
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("command", WRITING)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(lidistill, good, tmp_path, command, place):
    out = place(tmp_path)
    scans = good.kitti / "training" / "velodyne"
    words = [str(scans) if word == "SCANS" else filled(word, good, tmp_path / "new") for word in WRITING[command]]
    ended = lidistill(*words, out)
    ended.refused(str(out)[:50])
    assert ended.seconds < 10
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_text() == "kept"


def test_a_lock_that_links_to_a_file_leaves_the_file_alone(lidistill, good, tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    lidistill("train", good.teacher, "--out", tmp_path / "run").check()
    assert (tmp_path / "precious").read_text() == "kept"
