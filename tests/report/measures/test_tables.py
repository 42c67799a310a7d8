import dataclasses

import pytest

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scores import Scores
from lidistill.report import number_format as numbers
from lidistill.report.measures import tables
from lidistill.report.page_blocks import Table
from tests.report.fake_runs import timing_of


def cells(table: Table, **wanted: str) -> list[dict[str, str]]:
    """Rows by column name, of those whose cells are as wanted."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_results_have_a_row_a_run_in_order(runs, pair):
    table = tables.results_table(runs, [pair])
    assert [row[0] for row in table.rows] == ["Teacher", "Plain student", "Distilled student"]
    assert table.runs == (0, 1, 2)
    assert table.columns[1:5] == ("Car", "Pedestrian", "Cyclist", "Mean")
    teacher, plain, distilled = cells(table)
    assert teacher["Mean"] == f"{runs[0].value('strict/3d/mean/R40/moderate'):.1f}"
    assert (teacher["Parameters"], plain["Parameters"]) == ("4.83 M", "1.21 M")
    assert distilled["MACs"] == "2.09 G"
    assert "simulated data" in table.caption


def test_only_the_distilled_row_has_a_gain_and_its_interval(runs, pair):
    column = [row["Gain (95% interval)"] for row in cells(tables.results_table(runs, [pair]))]
    assert column[:2] == ["", ""]
    assert " to " in column[2]
    assert column[2].startswith(numbers.change(pair.headline.value))


def test_the_headline_column_is_stressed(runs, pair):
    table = tables.results_table(runs, [pair])
    assert {table.columns[column] for _, column in table.strong} == {"Mean"}


def test_a_run_without_scores_and_costs_is_a_row_of_not_available(runs):
    bare = dataclasses.replace(runs[1], scores=None, cost=None)
    row = cells(tables.results_table([runs[0], bare], []))[1]
    assert set(row.values()) == {"Plain student", "n/a", ""}


def test_every_score_stands_at_its_place(runs):
    table = tables.ap_table(runs, "strict", "R40", ("3d", "bev"))
    assert len(table.rows) == 4 * 3
    assert table.runs == (0, 1, 2) * 4
    [row] = cells(table, Class="Cyclist", Model="Plain student")
    assert row["BEV hard"] == f"{runs[1].value('strict/bev/Cyclist/R40/hard'):.1f}"
    assert row["3D easy"] == f"{runs[1].value('strict/3d/Cyclist/R40/easy'):.1f}"
    assert "Car 0.7" in table.caption
    assert "Car 0.5" in tables.ap_table(runs, "loose", "R40", ("3d", "bev")).caption


def test_a_score_that_is_not_evaluated_is_not_zero(runs):
    key = "strict/3d/Car/R40/easy"
    scores = dataclasses.replace(runs[0].scores, values={**runs[0].scores.values, key: None})
    table = tables.ap_table([dataclasses.replace(runs[0], scores=scores)], "strict", "R40", ("3d",))
    assert cells(table, Class="Car")[0]["3D easy"] == "n/a"


def test_no_scores_make_no_table(runs):
    bare = [dataclasses.replace(run, scores=None, cost=None) for run in runs]
    assert tables.ap_table(bare, "strict", "R40", ("3d",)) is None
    assert (
        tables.costs_table(bare)
        is tables.parts_table(bare)
        is tables.truths_table(bare)
        is tables.values_table(bare)
        is None
    )


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
    table = tables.gains_table(changed)
    assert table.rows[0] == ("Car", "+2.0 (+0.5 to +3.0)", "+2.0 (−0.5 to +3.0)", "−2.0 (−3.0 to −1.0)")
    assert table.rows[1] == ("Mean", "n/a", "n/a", "n/a")
    assert table.strong == {(0, 1), (0, 3)}


def test_costs_say_how_much_smaller_the_student_is(runs):
    teacher, plain, _ = cells(tables.costs_table(runs))
    assert teacher["Parameters"] == "4.83 M"
    assert plain["Parameters"] == "1.21 M (4.0× fewer)"
    assert plain["MACs"] == "2.09 G (14× fewer)"
    assert plain["Peak memory"] == "not measured"
    assert "Whole" not in plain  # nothing is said of times that were not taken beside each other


def test_times_have_their_spread_and_the_ratio_its_interval(runs):
    timing = timing_of(
        runs, teacher=[20.0, 22.0, 30.0] * 3, plain=[10.0, 11.0, 15.0] * 3, distilled=[19.0, 24.0, 29.0] * 3
    )
    teacher, plain, distilled = cells(tables.times_table(runs, timing))
    assert (teacher["Whole"], teacher["Voxelise"], teacher["Times as fast"]) == (
        "22.0 ms (20.0 to 30.0)",
        "2.20 ms",
        "",
    )
    assert plain["Times as fast"] == "2.00× (2.00× to 2.00×)"
    assert distilled["Times as fast"] == "1.03× (0.92× to 1.05×)"
    assert tables.times_table(runs, timing).strong == {(1, 5)}
    assert tables.times_table(runs, timing_of(runs)) is None
    results = tables.results_table(runs, [], timing)
    assert cells(results)[1]["Latency (middle half)"] == "11.0 ms (10.0 to 15.0)"
    assert not [column for column in tables.results_table(runs, []).columns if "Latency" in column]


def test_memory_is_shown_where_it_was_measured(runs):
    measured = dataclasses.replace(runs[0], cost={**runs[0].cost, "peak_memory_bytes": 300 * 2**20})
    assert cells(tables.costs_table([measured]))[0]["Peak memory"] == "300 MiB"


def test_parts_add_up_to_all(runs):
    table = tables.parts_table(runs)
    shares = [int(cell.split("(")[1].rstrip("%)")) for cell in (row[1] for row in table.rows)]
    assert [row[0] for row in table.rows] == ["encoder", "backbone", "head", "other"]
    assert abs(sum(shares) - 100) <= 2


def test_truths_are_counted_by_class(runs):
    [row] = cells(tables.truths_table(runs), Class="Car")
    assert row["moderate"] == str(runs[0].scores.counts["Car/moderate"])
    assert int(row["easy"]) <= int(row["hard"])


def test_provenance_names_what_every_figure_needs(runs):
    table = tables.provenance_table(runs)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Dataset"] == ("simulated",) * 3
    assert rows["Split"] == ("val",) * 3
    assert rows["Frames"] == ("30",) * 3
    assert rows["Metric"] == ("kitti",) * 3
    assert rows["Commit"] == ("0123456789ab",) * 3
    assert rows["Distillation"] == ("n/a", "n/a", "pointdistiller, logits")
    assert "torch 2.13.0" in rows["Versions"][0]
    assert (
        rows["Overlap"][0]
        == "strict: Car 0.7, Pedestrian 0.5, Cyclist 0.5; loose: Car 0.5, Pedestrian 0.25, Cyclist 0.25"
    )


def test_another_metric_is_listed_as_it_is_named(runs):
    scores = Scores("nuscenes", "NDS", {"NDS": 45.25, "mAP": None})
    run = dataclasses.replace(runs[0], scores=scores)
    assert cells(tables.results_table([run], []))[0]["NDS"] == "45.2"
    assert tables.values_table([run]).rows == (("NDS", "45.2"), ("mAP", "n/a"))
    assert tables.ap_table([run], "strict", "R40", ("3d",)) is None
    assert tables.score_name("NDS") == "NDS"


def test_a_score_is_named_in_words():
    assert (
        tables.score_name("strict/3d/mean/R40/moderate") == "3D AP (R40), mean over classes, moderate, strict overlap"
    )
    assert tables.score_name("") == "Score"


def test_rows_that_do_not_fit_the_columns_are_a_mistake():
    with pytest.raises(ValueError, match="do not fit"):
        Table(("a", "b"), (("1",),))
