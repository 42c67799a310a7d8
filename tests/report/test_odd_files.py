"""Run folders that hold other things than a run writes: the page leaves a section out and says so, or one sentence
names the file.
"""

import json
import os
import shutil
import warnings

import numpy as np
import pytest

from lidistill.datasets import PROTOCOLS
from lidistill.report.measures.runs import read_runs
from lidistill.report.render.page import build_page, page_as_html, write_report
from lidistill.run_folder import RunFolder, read_json
from lidistill.types import InputError
from tests.report.fake_runs import timing_of

ODD = [None, True, -1, 1e300, "", "text", [], [[1]], {}, {"a": {"b": None}}, "$x_{", "\u202e", 10**30]
FILES = ("certificate.json", "profile.json", "scores.json")


@pytest.fixture(scope="module")
def frugal(trio, tmp_path_factory):
    """Two runs without pictures and intervals, so that many pages of them are made in seconds."""
    root = tmp_path_factory.mktemp("frugal")
    folders = [shutil.copytree(trio[row], root / trio[row].name) for row in (0, 2)]
    for folder in folders:
        for name in ("matches.npz", "samples.npz", "predictions.npz", "log.jsonl"):
            (folder / name).unlink()
    return folders


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without curves, which take longest to make."""
    for name in ("score_curves", "score_against_cost", "training_curves", "gain_chart"):
        monkeypatch.setattr(f"lidistill.report.render.plots.{name}", lambda *parts: [])


def page_or_sentence(folders):
    """(The page, no sentence), or (no page, the sentence of an InputError); anything else fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return page_as_html(build_page(read_runs(folders, PROTOCOLS))), None
    except InputError as error:
        return None, str(error)


def places(content, path=()):
    """Every place of nested containers, by its keys; of long lists and wide mappings the first few."""
    yield path
    if isinstance(content, dict):
        for key in list(content)[:6]:
            yield from places(content[key], (*path, key))
    elif isinstance(content, list) and content:
        yield from places(content[0], (*path, 0))


def changed(content, path, value):
    if not path:
        return value
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize("name", FILES)
def test_odd_values_anywhere_in_a_file_make_a_page_or_a_sentence(frugal, undrawn, name):
    path = frugal[1] / name
    content = read_json(path)
    kept = path.read_text()
    generator = np.random.default_rng(0)
    sentences = set()
    for place in places(content):
        path.write_text(json.dumps(changed(content, place, ODD[generator.integers(len(ODD))])))
        _, sentence = page_or_sentence(frugal)
        if sentence is not None:
            assert str(frugal[1]) in sentence, (place, sentence)
            sentences.add(sentence)
    path.write_text(kept)
    assert sentences or name == "certificate.json"


@pytest.mark.parametrize("value", [-1, "$x_{", [[1]], {"a": {"b": None}}], ids=repr)
@pytest.mark.parametrize("key", ["role", "seed", "data", "detector", "training", "distillation", "provenance"])
def test_odd_settings_make_a_page_or_a_sentence(frugal, undrawn, key, value):
    folder = RunFolder(frugal[1])
    kept = folder.read_experiment()
    folder.write_experiment({**kept, key: value})
    try:
        page, sentence = page_or_sentence(frugal)
    finally:
        folder.write_experiment(kept)
    assert page is not None or str(frugal[1]) in sentence


@pytest.mark.parametrize(
    ("name", "content"), [("certificate.json", "[1]"), ("certificate.json", "{"), ("certificate.json", '{"checks": 5}')]
)
def test_a_certificate_that_is_none_leaves_its_section_out_and_the_page_stands(frugal, undrawn, name, content):
    kept = (frugal[1] / name).read_text()
    (frugal[1] / name).write_text(content)
    page, sentence = page_or_sentence(frugal)
    (frugal[1] / name).write_text(kept)
    assert sentence is None
    assert content == '{"checks": 5}' or "certificate is left out" in page


@pytest.mark.parametrize("name", ["samples.npz", "predictions.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", "odd"])
def test_pictures_that_cannot_be_drawn_are_left_out_and_the_page_stands(
    trio, undrawn, tmp_path, name, content, monkeypatch
):
    monkeypatch.setattr("lidistill.report.measures.gains.RESAMPLES", 2)
    folder = shutil.copytree(trio[0], tmp_path / "run")
    if content == "odd":
        with np.load(folder / name) as file:
            arrays = dict(file)
        odd = "point_range" if name == "samples.npz" else next(iter(arrays))
        arrays[odd] = np.full(6, np.nan) if name == "samples.npz" else np.array(["text"])
        np.savez(folder / name, **arrays)
    else:
        (folder / name).write_bytes(content)
    page, sentence = page_or_sentence([folder])
    assert sentence is None
    assert "The pictures are left out" in page


def test_dollar_signs_and_other_marks_in_names_are_text(trio, tmp_path):
    names = ("$teacher_{", "plain$^$ & co", "#student\\")
    folders = [shutil.copytree(path, tmp_path / name) for path, name in zip(trio, names, strict=True)]
    for folder, role in zip(folders, ("$\\frac{1}{$", "plain", "distilled"), strict=True):
        RunFolder(folder).write_experiment({**RunFolder(folder).read_experiment(), "role": role})
    extra = shutil.copytree(trio[1], tmp_path / "again$$")
    page = write_report([*folders, extra], tmp_path / "report", PROTOCOLS).read_text()
    assert "again$$" in page


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are a matter of POSIX")
def test_a_folder_whose_name_is_no_utf8_is_shown_escaped(trio, tmp_path):
    odd = tmp_path / os.fsdecode(b"r\xff")
    try:
        shutil.copytree(trio[0], odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    other = shutil.copytree(trio[0], tmp_path / "other")
    page = write_report([odd, other], tmp_path / "report", PROTOCOLS).read_text()
    assert "r\\udcff" in page


def test_times_of_another_kind_are_not_believed(runs):
    timing = timing_of(runs, teacher=[20.0] * 9, plain=[10.0] * 8)
    assert timing.times_as_fast(runs[1], runs[0]).value is None
