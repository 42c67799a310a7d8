import dataclasses

from lidistill.report.measures.cost_tables import costs_table, parts_table, times_table
from lidistill.report.measures.score_tables import results_table
from tests.report.fake_runs import timing_of
from tests.report.measures.cells import cells


def test_costs_say_how_much_smaller_the_student_is(runs):
    teacher, plain, _ = cells(costs_table(runs))
    assert teacher["Parameters"] == "4.83 M"
    assert plain["Parameters"] == "1.21 M (4.0× fewer)"
    assert plain["MACs"] == "2.09 G (14× fewer)"
    assert plain["Peak memory"] == "not measured"
    assert "Whole" not in plain  # nothing is said of times that were not taken beside each other


def test_times_have_their_spread_and_the_ratio_its_interval(runs):
    timing = timing_of(
        runs, teacher=[20.0, 22.0, 30.0] * 3, plain=[10.0, 11.0, 15.0] * 3, distilled=[19.0, 24.0, 29.0] * 3
    )
    teacher, plain, distilled = cells(times_table(runs, timing))
    assert (teacher["Whole"], teacher["Prepare"], teacher["Times as fast"]) == (
        "22.0 ms (20.0 to 30.0)",
        "2.20 ms",
        "",
    )
    assert plain["Times as fast"] == "2.00× (2.00× to 2.00×)"
    assert distilled["Times as fast"] == "1.03× (0.92× to 1.05×)"
    assert times_table(runs, timing).strong == {(1, 5)}
    assert times_table(runs, timing_of(runs)) is None
    results = results_table(runs, [], timing)
    assert cells(results)[1]["Latency (middle half)"] == "11.0 ms (10.0 to 15.0)"
    assert not [column for column in results_table(runs, []).columns if "Latency" in column]


def test_memory_is_shown_where_it_was_measured(runs):
    measured = dataclasses.replace(runs[0], cost={**runs[0].cost, "peak_memory_bytes": 300 * 2**20})
    assert cells(costs_table([measured]))[0]["Peak memory"] == "300 MiB"


def test_parts_add_up_to_all(runs):
    table = parts_table(runs)
    shares = [int(cell.split("(")[1].rstrip("%)")) for cell in (row[1] for row in table.rows)]
    assert [row[0] for row in table.rows] == ["encoder", "backbone", "head", "other"]
    assert abs(sum(shares) - 100) <= 2


def test_no_costs_make_no_table(runs):
    bare = [dataclasses.replace(run, cost=None) for run in runs]
    assert costs_table(bare) is parts_table(bare) is None
