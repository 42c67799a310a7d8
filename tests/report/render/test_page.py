import base64
import dataclasses
import re
import shutil
from html.parser import HTMLParser

import pytest

from lidistill.datasets import PROTOCOLS
from lidistill.datasets.kitti.score_names import AP
from lidistill.evaluation.estimate import Estimate
from lidistill.report.measures.runs import read_runs
from lidistill.report.page_blocks import Missing, Paragraph, Section, Table, figures_of
from lidistill.report.render.page import build_page, page_as_html, write_report
from lidistill.run_folder import RunFolder
from lidistill.types import InputError
from tests.report.fake_runs import make_frames, timing_of, write_run

VOID = {"meta", "link", "input", "img", "br"}


class Outline(HTMLParser):
    """Tags, attributes and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def html(report):
    return (report / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(html):
    return Outline(html)


def test_the_page_reaches_for_nothing_outside(html, outline):
    for tag, name, value in outline.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("#", "data:")), (tag, name, value[:60])
    assert "script" not in outline.tags
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", html)


def test_links_within_the_page_lead_somewhere(outline):
    identifiers = [value for _, name, value in outline.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for _, name, value in outline.attributes if name == "href" and value.startswith("#")} <= set(
        identifiers
    )


def test_pictures_are_inlined_and_described(outline, report):
    sources = [value for tag, name, value in outline.attributes if (tag, name) == ("img", "src")]
    assert len(sources) == 4 * 3
    first = base64.b64decode(sources[0].removeprefix("data:image/png;base64,"), validate=True)
    assert first == (report / "figures" / "frame_000000_0.png").read_bytes()
    assert all(value for tag, name, value in outline.attributes if (tag, name) == ("img", "alt"))
    assert outline.tags.count("svg") == 7


def test_the_first_screen_says_what_was_gained(html, page, pair):
    assert page.badge == "SIMULATED DATA"
    assert html.count(">SIMULATED DATA<") == 2
    assert f"<h1>{page.headline}</h1>" in html
    assert page.verdict == pair.headline.verdict
    assert [figure.name for figure in page.key_figures] == [
        "AP gained",
        "of the teacher's lead",
        "fewer parameters",
        "fewer MACs",
    ]
    assert page.key_figures[2].value == "4.0×"
    assert page.title == "PointPillars on simulated streets"
    assert "on 30 frames of the val split" in page.lead
    assert "distilled with pointdistiller and logits" in page.lead


def test_every_section_is_there_in_order(page):
    wanted = [
        "results",
        "gain",
        "pictures",
        "training",
        "curves",
        "scores",
        "cost",
        "teacher",
        "notes",
        "provenance",
    ]
    assert [section.id for section in page.sections] == wanted
    assert not [
        block
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Missing) and section.id != "cost"
    ]


def test_markdown_names_only_pictures_that_are_there(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\((figures/[^)]+)\)", text))
    assert named == {f"figures/{path.name}" for path in (report / "figures").iterdir()}
    assert "**SIMULATED DATA**" in text
    assert "simulated data" in (report / "report.tex").read_text(encoding="utf-8")


def test_the_page_is_the_same_each_time(trio, report, tmp_path):
    again = write_report(trio, tmp_path, PROTOCOLS)
    assert again == tmp_path / "report.html"
    assert again.read_bytes() == (report / "report.html").read_bytes()
    assert (tmp_path / "report.md").read_bytes() == (report / "report.md").read_bytes()


def test_only_what_is_missing_is_missing(trio, tmp_path):
    folders = [shutil.copytree(path, tmp_path / path.name) for path in trio]
    for folder in folders:
        for name in ("matches.npz", "profile.json", "log.jsonl", "predictions.npz", "samples.npz", "certificate.json"):
            (folder / name).unlink(missing_ok=True)
    page = build_page(read_runs(folders, PROTOCOLS))
    html = page_as_html(page)
    Outline(html)
    missing = [block for section in page.sections for block in section.blocks if isinstance(block, Missing)]
    assert all(block.command.startswith("lidistill ") for block in missing)
    assert {section.id for section in page.sections} >= {
        "results",
        "gain",
        "pictures",
        "training",
        "scores",
        "cost",
        "notes",
    }
    assert "its uncertainty is unknown" in page.headline
    assert page.verdict == "unproven"
    assert len(page.key_figures) == 2  # nothing is said of a cost that was not measured


def test_runs_that_were_never_scored_make_a_page_that_says_so(trio, tmp_path):
    folders = []
    for path in trio:
        folder = RunFolder(tmp_path / path.name)
        folder.write_experiment(RunFolder(path).read_experiment())
        folders.append(folder.path)
    page = build_page(read_runs(folders[:2], PROTOCOLS))
    assert page.headline == "No run has been scored yet."
    assert "lidistill evaluate" in page.lead
    assert (
        build_page(read_runs(folders, PROTOCOLS)).headline
        == "No gain can be stated: one of the two students has no score."
    )
    Outline(page_as_html(page))
    write_report(folders, tmp_path / "report", PROTOCOLS)


def test_one_run_alone_is_a_page(trio):
    page = build_page(read_runs(trio[:1], PROTOCOLS))
    assert page.headline.startswith("Teacher: ")
    assert page.verdict == "none"
    assert page.key_figures == ()
    assert "gain" not in [section.id for section in page.sections]


def test_a_student_without_its_baseline_is_told_what_is_missing(trio):
    page = build_page(read_runs([trio[0], trio[2]], PROTOCOLS))
    [section] = [section for section in page.sections if section.id == "gain"]
    assert "No plain student" in section.blocks[0].text
    assert "--compression" in section.blocks[0].command


def test_a_gain_that_is_not_shown_leads_the_page(runs, pair, page, monkeypatch):
    real = page
    unsure = dataclasses.replace(pair, gains={key: Estimate(0.6, -0.9, 2.0, scale=AP) for key in pair.gains})
    monkeypatch.setattr("lidistill.report.render.page.pair_runs", lambda runs: [unsure])
    page = build_page(runs)
    assert (
        page.headline
        == "From one seed, no gain is shown: +0.6 AP, and the 95% interval over frames −0.9 to +2.0 includes zero."
    )
    assert page.verdict == "unproven" != real.verdict
    assert '<body class="unproven">' in page_as_html(page)


def test_speed_is_on_the_page_only_where_the_runs_were_timed_beside_each_other(runs, page):
    [cost] = [section for section in page.sections if section.id == "cost"]
    [untimed] = [block for block in cost.blocks if isinstance(block, Missing)]
    assert "it makes no statement on speed" in untimed.text
    timed = build_page(runs, timing_of(runs, teacher=[20.0] * 9, plain=[10.0] * 9, distilled=[10.0] * 9))
    [cost] = [section for section in timed.sections if section.id == "cost"]
    assert not [block for block in cost.blocks if isinstance(block, Missing)]
    said = "\n".join(block.text for block in cost.blocks if isinstance(block, Paragraph))
    assert "Distilled student: 2.00× as fast as its teacher (95% interval 2.00× to 2.00×)" in said
    assert "Timed on Example CPU, 1 CPU thread, 9 turns over 4 frames" in said
    assert "score_latency" in [figure.name for section in timed.sections for figure in figures_of(section.blocks)]
    assert "score_latency" not in [figure.name for section in page.sections for figure in figures_of(section.blocks)]
    left_out = dataclasses.replace(timing_of(runs), left_out={"Teacher": "no checkpoint.pt"})
    assert "Teacher: not timed (no checkpoint.pt)." in page_as_html(build_page(runs, left_out))


def test_several_seeds_lead_the_page_together(tmp_path):
    frames = make_frames(12)
    folders = [write_run(tmp_path / "teacher", "teacher", frames)]
    for seed in (0, 1):
        folders += [write_run(tmp_path / f"{role}{seed}", role, frames, seed=seed) for role in ("plain", "distilled")]
    page = build_page(read_runs(folders, PROTOCOLS))
    assert page.headline.startswith("Over 2 seeds")
    assert "interval over 2 seeds" in page.key_figures[0].note
    [gain] = [section for section in page.sections if section.id == "gain"]
    assert sum(isinstance(block, Paragraph) for block in gain.blocks) == 2
    names = [figure.name for section in page.sections for figure in figures_of(section.blocks)]
    assert len(names) == len(set(names))
    Outline(page_as_html(page))


def test_names_with_markup_stay_text(trio, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    folders = [shutil.copytree(path, tmp_path / path.name) for path in trio]
    folder = RunFolder(folders[0])
    folder.write_experiment({**folder.read_experiment(), "role": evil, "note": evil, "detector": {"name": evil}})
    html = page_as_html(build_page(read_runs(folders, PROTOCOLS)))
    outline = Outline(html)
    assert not [attribute for attribute in outline.attributes if attribute[1] == "onerror"]
    assert any("onerror=alert(1)" in words for words in outline.words)


def test_a_block_without_a_rendering_does_not_vanish(page):
    odd = dataclasses.make_dataclass("Odd", [("kind", str, "odd")])()
    with pytest.raises(TypeError, match="no HTML for a Odd"):
        page_as_html(dataclasses.replace(page, sections=(Section("x", "X", (odd,)),)))


def test_the_first_table_is_the_result_table(page):
    assert isinstance(page.sections[0].blocks[0], Table)


def test_a_place_that_cannot_be_written_is_one_sentence(trio, tmp_path):
    (tmp_path / "report.md" / "in the way").mkdir(parents=True)
    with pytest.raises(InputError, match=r"report\.md: could not be written"):
        write_report(trio[:1], tmp_path, PROTOCOLS)
