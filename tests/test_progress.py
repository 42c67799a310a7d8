"""The line of progress, and the time left of work in several stages."""

import io
import re
from contextlib import redirect_stderr

import pytest

from lidistill import progress as progress_module
from lidistill.progress import StagedWork, progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress_module, "_QUIET_LINE_EVERY_S", -1.0)  # every line
    monkeypatch.setenv("COLUMNS", "300")
    return made


def lines_of(work, stage, total, steps, clock, seconds_a_step, start=0):
    stream = io.StringIO()
    with redirect_stderr(stream), work.stage(stage), progress(stage, total, start) as advance:
        for done in steps:
            clock.now += seconds_a_step
            advance(done, f"step {done}")
    return stream.getvalue().splitlines()


def left(line):
    return re.search(r"demo: (.*) left", line)[1]


def test_the_time_left_is_that_of_all_stages_at_the_pace_so_far(clock):
    work = StagedWork("demo", {"teacher": 100.0, "student": 300.0}, clock)
    lines = lines_of(work, "teacher", 10, range(1, 11), clock, 20)  # twice as slow as expected
    assert [left(line) for line in lines] == [f"{(800 - 20 * step) / 60:.0f} min" for step in range(1, 11)]
    lines = lines_of(work, "student", 10, [9, 10], clock, 270)
    assert [left(line) for line in lines] == ["38 s", "0 s"]  # 30 expected ones, at 470 s for 370
    assert lines[0].startswith("student: 9/10, ")
    assert "; step 9; demo: " in lines[0]


def test_a_stage_that_was_done_before_and_one_that_goes_on_do_not_count_as_fast(clock):
    work = StagedWork("demo", {"teacher": 100.0, "plain": 100.0, "student": 200.0}, clock)
    work.skip("teacher")
    lines = lines_of(work, "plain", 10, [6, 7], clock, 10, start=5)
    assert [left(line) for line in lines] == ["4 min", "4 min"]
    assert left(lines_of(work, "student", 10, [10], clock, 100)[0]) == "0 s"


def test_a_line_outside_of_stages_has_no_such_words(clock):
    stream = io.StringIO()
    with redirect_stderr(stream), progress("predict", 2) as advance:
        advance(2)
    assert stream.getvalue().startswith("predict: 2/2, ")
    assert "demo" not in stream.getvalue()
