import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scores import Curve
from lidistill.report.render import plots
from lidistill.report.render.svg_figure import INK
from tests.report.fake_runs import timing_of


@pytest.fixture(scope="module")
def figures(runs, pair):
    timing = timing_of(runs, teacher=[20.0] * 9, plain=[10.0] * 9, distilled=[10.0] * 9)
    costs = plots.score_against_cost(runs, [pair], timing)
    drawn = [*plots.training_curves(runs), *plots.score_curves(runs), *costs, plots.gain_chart(pair)]
    return {figure.name: figure for figure in drawn}


def test_there_is_a_figure_for_each_question(figures):
    classes = {f"precision_recall_{name}" for name in ("car", "pedestrian", "cyclist")}
    assert set(figures) == {"training_loss", "validation_score", "score_parameters", "score_latency", "gains", *classes}


def test_drawings_are_well_formed_and_reach_for_nothing_outside(figures):
    for figure in figures.values():
        ElementTree.fromstring(figure.svg)
        assert "://" not in figure.svg
        assert "<script" not in figure.svg
        assert all(reference.startswith("#") for reference in re.findall(r'href="([^"]*)"', figure.svg))


def test_identifiers_are_unique_over_all_drawings(figures):
    identifiers = [name for figure in figures.values() for name in re.findall(r'\bid="([^"]+)"', figure.svg)]
    assert len(identifiers) == len(set(identifiers)) > 0
    for figure in figures.values():
        own = set(re.findall(r'\bid="([^"]+)"', figure.svg))
        used = set(re.findall(r'href="#([^"]+)"', figure.svg)) | set(re.findall(r"url\(#([^)]+)\)", figure.svg))
        assert used <= own, figure.name


def test_drawings_take_the_colours_and_the_font_of_the_page(figures, runs):
    for figure in figures.values():
        assert "currentColor" in figure.svg
        assert INK not in figure.svg
        assert "DejaVu" not in figure.svg
        assert 'width="' not in figure.svg.split(">")[0]
    for run in runs:
        assert f"var(--hue-{run.colour.on_light[1:]}" in figures["training_loss"].svg


def test_pictures_are_pngs_that_are_not_blank(figures):
    for figure in figures.values():
        image = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
        assert image.shape[1] > 600
        assert image.std() > 5


def test_figures_are_drawn_alike_each_time(runs, figures):
    again = {figure.name: figure for figure in plots.score_curves(runs)}["precision_recall_car"]
    assert again == figures["precision_recall_car"]


def test_simulated_figures_say_so_themselves(figures, runs):
    assert all(">simulated<" in figure.svg for figure in figures.values())
    real = [
        dataclasses.replace(run, conditions={"dataset": "kitti"}, experiment={"data": {"name": "kitti"}})
        for run in runs
    ]
    assert all(">simulated<" not in figure.svg for figure in plots.training_curves(real))


def test_nothing_to_draw_is_no_figure(runs, pair):
    bare = [dataclasses.replace(run, scores=None, cost=None, log=[]) for run in runs]
    assert plots.training_curves(bare) == plots.score_curves(bare) == plots.score_against_cost(bare, []) == []
    assert plots.score_against_cost(runs[:1], []) == []
    assert plots.gain_chart(dataclasses.replace(pair, gains={pair.main: Estimate(None)})) is None


@pytest.mark.parametrize("losses", [[np.nan, None, "x"], [-1.0, 2.0], [0.0], [1e300, 1e-300]])
def test_strange_losses_do_not_stop_the_report(runs, losses):
    log = [{"step": step, "kind": "train", "loss": value} for step, value in enumerate(losses)]
    for figure in plots.training_curves([dataclasses.replace(runs[0], log=log)]):
        ElementTree.fromstring(figure.svg)


def with_curve(run, title):
    """The run with one curve under that title."""
    layout = run.scores.layout
    charts = dataclasses.replace(layout.charts, curves={title: "its curve"})
    scores = dataclasses.replace(
        run.scores,
        curves={"its curve": Curve((0.0, 50.0, 100.0), (100.0, 50.0, 0.0))},
        layout=dataclasses.replace(layout, charts=charts),
    )
    return dataclasses.replace(run, scores=scores)


def test_names_with_markup_are_shown_as_text(runs):
    [figure] = plots.score_curves([with_curve(runs[0], "<b>&Car</b>")])
    assert "<b>" not in figure.svg
    assert figure.name == "precision_recall_b_car_b"


def test_curves_of_all_runs_share_the_chart_of_their_title(runs):
    one, other = (with_curve(run, "Car") for run in runs[:2])
    [figure] = plots.score_curves([one, other])
    assert figure.name == "precision_recall_car"
    assert all(f"var(--hue-{run.colour.on_light[1:]}" in figure.svg for run in (one, other))
    assert "recall, %" in figure.svg and "precision, %" in figure.svg
    bare = dataclasses.replace(one.scores, curves={})
    assert plots.score_curves([dataclasses.replace(one, scores=bare)]) == []


def test_thinning_keeps_the_mean_and_the_order():
    steps, values = np.arange(3000.0), np.random.default_rng(0).normal(size=3000)
    fewer, means = plots._thinned(steps, values)
    assert len(fewer) == plots.MOST_POINTS
    assert (np.diff(fewer) > 0).all()
    assert means.mean() == pytest.approx(values.mean())
    assert [len(part) for part in plots._thinned(np.zeros(0), np.zeros(0))] == [0, 0]


def test_costs_too_near_for_two_labels_get_one():
    assert plots._apart(np.array([1.0, 1.01, 4.0])) == [1.0, 4.0]
    assert plots._apart(np.array([4.0, 1.0, 2.0])) == [1.0, 2.0, 4.0]
    assert plots._apart(np.array([3.0, 3.0])) == [3.0]


def test_a_dollar_in_a_name_is_a_dollar(runs):
    named = [dataclasses.replace(run, label=f"{run.label} ($run_{row}^$)") for row, run in enumerate(runs)]
    [figure, *_] = plots.training_curves(named)
    ElementTree.fromstring(figure.svg)
    assert figure.png.startswith(b"\x89PNG")
    [figure] = plots.score_curves([with_curve(runs[0], "$Car^{")])
    assert "$Car^{" in figure.svg
