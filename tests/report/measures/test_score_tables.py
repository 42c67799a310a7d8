import dataclasses

import pytest

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scale import Scale
from lidistill.report import number_format as numbers
from lidistill.report.measures.score_tables import counts_table, gains_table, reading, results_table, score_table
from lidistill.report.page_blocks import Table
from tests.evaluation.small_scores import layout_of, small_scores
from tests.report.measures.cells import cells


def test_results_have_a_row_a_run_in_order(runs, pair):
    table = results_table(runs, [pair])
    assert [row[0] for row in table.rows] == ["Teacher", "Plain student", "Distilled student"]
    assert table.runs == (0, 1, 2)
    assert table.columns[1:5] == ("Car", "Pedestrian", "Cyclist", "Mean")
    teacher, plain, distilled = cells(table)
    assert teacher["Mean"] == f"{runs[0].value('strict/3d/mean/R40/moderate'):.1f}"
    assert (teacher["Parameters"], plain["Parameters"]) == ("4.83 M", "1.21 M")
    assert distilled["MACs"] == "2.09 G"
    assert "simulated data" in table.caption


def test_only_the_distilled_row_has_a_gain_and_its_interval(runs, pair):
    column = [row["Gain (95% interval)"] for row in cells(results_table(runs, [pair]))]
    assert column[:2] == ["", ""]
    assert " to " in column[2]
    assert column[2].startswith(numbers.change(pair.headline.value, pair.headline.scale))


def test_the_headline_column_is_stressed(runs, pair):
    table = results_table(runs, [pair])
    assert {table.columns[column] for _, column in table.strong} == {"Mean"}


def test_a_run_without_scores_and_costs_is_a_row_of_not_available(runs):
    bare = dataclasses.replace(runs[1], scores=None, cost=None)
    row = cells(results_table([runs[0], bare], []))[1]
    assert set(row.values()) == {"Plain student", "n/a", ""}


def test_every_score_stands_at_its_place(runs):
    layout = runs[0].scores.layout
    table = score_table(runs, layout.tables[0])
    assert len(table.rows) == 4 * 3
    assert table.runs == (0, 1, 2) * 4
    [row] = cells(table, Class="Cyclist", Model="Plain student")
    assert row["BEV hard"] == f"{runs[1].value('strict/bev/Cyclist/R40/hard'):.1f}"
    assert row["3D easy"] == f"{runs[1].value('strict/3d/Cyclist/R40/easy'):.1f}"
    assert "Car 0.7" in table.caption
    [loose] = [table for table in layout.folded if "loose" in table.title]
    assert "Car 0.5" in score_table(runs, loose).caption


def test_a_score_that_is_not_evaluated_is_not_zero(runs):
    key = "strict/3d/Car/R40/easy"
    scores = dataclasses.replace(runs[0].scores, values={**runs[0].scores.values, key: None})
    table = score_table([dataclasses.replace(runs[0], scores=scores)], scores.layout.tables[0])
    assert cells(table, Class="Car")[0]["3D easy"] == "n/a"


def test_no_scores_make_no_table(runs, pair):
    bare = [dataclasses.replace(run, scores=None) for run in runs]
    assert score_table(bare, runs[0].scores.layout.tables[0]) is counts_table(bare) is None
    assert gains_table(dataclasses.replace(pair, distilled=bare[2])) is None


def test_gains_are_stressed_only_where_the_interval_excludes_zero(pair):
    keys = list(pair.gains)
    changed = dataclasses.replace(
        pair,
        gains={
            keys[0]: Estimate(2.0, 0.5, 3.0),
            keys[1]: Estimate(2.0, -0.5, 3.0),
            keys[2]: Estimate(-2.0, -3, -1),
            pair.main: Estimate(None),
        },
    )
    table = gains_table(changed)
    assert table.rows[0] == ("Car", "+2.0 (+0.5 to +3.0)", "+2.0 (−0.5 to +3.0)", "−2.0 (−3.0 to −1.0)")
    assert table.rows[1] == ("Mean", "n/a", "n/a", "n/a")
    assert table.strong == {(0, 1), (0, 3)}


def test_truths_are_counted_by_class(runs):
    [row] = cells(counts_table(runs), Class="Car")
    assert row["moderate"] == str(runs[0].scores.counts["Car/moderate"])
    assert int(row["easy"]) <= int(row["hard"])


def test_any_metric_is_written_in_its_own_unit_and_decimals(runs):
    values = {"NDS": 0.4525, "mATE": 0.314, "mAP": None}
    layout = dataclasses.replace(layout_of(values, "NDS"), summary={"NDS": "NDS", "mATE": "mATE"})
    other = {"mATE": Scale("m", decimals=3, higher_is_better=False)}
    scores = small_scores(values, "NDS", Scale("NDS", decimals=2), layout=layout, other_scales=other)
    run = dataclasses.replace(runs[0], scores=scores)
    results = results_table([run], [])
    assert (cells(results)[0]["NDS"], cells(results)[0]["mATE"]) == ("0.45", "0.314")
    assert results.caption == "the score NDS, NDS; simulated data"
    [table] = layout.tables
    assert [row[2] for row in score_table([run], table).rows] == ["0.45", "0.314", "n/a"]


def test_a_caption_says_where_lower_is_better():
    assert reading(small_scores({"d": 1.0}, "d", Scale("m", read_as="metres", higher_is_better=False))) == (
        "the score d, metres, lower is better"
    )
    assert reading(None) == "Score"


def test_tables_of_simulated_results_say_so(runs, pair):
    made = [results_table(runs, [pair]), gains_table(pair), score_table(runs, runs[0].scores.layout.tables[0])]
    assert all(table.caption.endswith("; simulated data") for table in made)


def test_rows_that_do_not_fit_the_columns_are_a_mistake():
    with pytest.raises(ValueError, match="do not fit"):
        Table(("a", "b"), (("1",),))
