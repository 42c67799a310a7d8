"""Training ends with the same weights however often it is interrupted, and says what went wrong when it must stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from lidistill.run_folder import RunFolder
from lidistill.training.fit import fit
from lidistill.training.objective import Supervised
from lidistill.training.resume_file import saved_step
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import InputError
from tests.training.conftest import TinyDetector, TinyFrames

SETTINGS = TrainingSettings(steps=30, batch_size=4, learning_rate=0.01, save_every=7, log_every=5)


def run(folder, settings=SETTINGS, frames=None, resume=False, detector=None, **more):
    torch.manual_seed(3)
    objective = Supervised(detector or TinyDetector())
    fit(
        objective,
        frames or TinyFrames(),
        settings,
        RunFolder(folder),
        seed=1,
        name="tiny",
        device="cpu",
        resume=resume,
        **more,
    )
    return objective.student.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_loss_falls(tmp_path):
    run(tmp_path, TrainingSettings(steps=150, batch_size=4, learning_rate=0.03, log_every=10))
    losses = [row["loss"] for row in RunFolder(tmp_path).read_log() if row["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


def test_two_runs_of_one_seed_are_equal(tmp_path):
    assert same(run(tmp_path / "a"), run(tmp_path / "b"))


def test_worker_processes_change_nothing(tmp_path):
    workers = TrainingSettings(steps=30, batch_size=4, learning_rate=0.01, save_every=7, workers=2)
    assert same(run(tmp_path / "a"), run(tmp_path / "b", workers))


@pytest.mark.parametrize(("accumulate", "precision"), [(1, "32"), (2, "32"), (1, "bf16")])
def test_a_run_stopped_by_an_error_resumes_to_the_same_weights(tmp_path, accumulate, precision):
    settings = TrainingSettings(
        steps=30,
        batch_size=4,
        learning_rate=0.01,
        save_every=7,
        log_every=5,
        accumulate=accumulate,
        precision=precision,
    )
    whole = run(tmp_path / "whole", settings)

    class Stop(TinyFrames):
        def __getitem__(self, key):
            if key[0] >= 7:
                raise KeyboardInterrupt
            return super().__getitem__(key)

    with pytest.raises(BaseException):  # noqa: B017 - Lightning turns the interrupt into its own exit
        run(tmp_path / "cut", settings, Stop())
    assert RunFolder(tmp_path / "cut").resume.is_file()
    assert same(whole, run(tmp_path / "cut", settings, resume=True))
    steps = [row["step"] for row in RunFolder(tmp_path / "cut").read_log()]
    assert steps == sorted(set(steps)) == [row["step"] for row in RunFolder(tmp_path / "whole").read_log()]


KILLED = """
import sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
from tests.training.conftest import TinyFrames
from tests.training.test_fit import run, SETTINGS
class Slow(TinyFrames):
    def __getitem__(self, key):
        time.sleep(0.02)
        return super().__getitem__(key)
run(Path(sys.argv[1]), SETTINGS, Slow())
"""


def test_kill_9_in_the_middle_then_resume_gives_the_weights_of_an_uninterrupted_run(tmp_path):
    whole = run(tmp_path / "whole")
    cut = RunFolder(tmp_path / "cut")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(cut.path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not cut.resume.is_file() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert torch.load(cut.resume, weights_only=True)["global_step"] < SETTINGS.steps
    assert same(whole, run(cut.path, resume=True))


def test_another_learning_rate_is_taken_up_from_the_saved_step(tmp_path):
    """All rates of the rest are in proportion to the peak, and the same peak changes no weight."""
    whole = run(tmp_path / "whole")
    rates = {}
    for name, factor in (("same", 1.0), ("lower", 0.1)):
        folder = tmp_path / name

        class Stop(TinyFrames):
            def __getitem__(self, key):
                if key[0] >= 7:
                    raise KeyboardInterrupt
                return super().__getitem__(key)

        with pytest.raises(BaseException):  # noqa: B017
            run(folder, frames=Stop())
        step = saved_step(RunFolder(folder).resume)
        assert 0 < step < SETTINGS.steps
        state = run(folder, replace(SETTINGS, learning_rate=factor * SETTINGS.learning_rate), resume=True)
        assert same(whole, state) is (name == "same")
        rates[name] = {row["step"]: row["lr"] for row in RunFolder(folder).read_log()}
    assert rates["lower"] == pytest.approx(
        {at: rate * (0.1 if at > step else 1.0) for at, rate in rates["same"].items()}
    )


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    whole = run(tmp_path)
    before = RunFolder(tmp_path).log.read_text()
    assert same(whole, run(tmp_path, resume=True))
    assert [json.loads(line) for line in before.splitlines()] == RunFolder(tmp_path).read_log()


def test_the_moving_average_is_handed_on_and_survives_resumption(tmp_path):
    settings = TrainingSettings(steps=30, batch_size=4, learning_rate=0.01, save_every=7, ema_decay=0.9)
    whole = run(tmp_path / "whole", settings)
    assert not same(whole, run(tmp_path / "plain"))

    class Stop(TinyFrames):
        def __getitem__(self, key):
            if key[0] >= 7:
                raise KeyboardInterrupt
            return super().__getitem__(key)

    with pytest.raises(BaseException):  # noqa: B017
        run(tmp_path / "cut", settings, Stop())
    assert same(whole, run(tmp_path / "cut", settings, resume=True))


def test_a_non_finite_loss_stops_the_run_and_names_frame_term_and_cause(tmp_path):
    with pytest.raises(
        InputError,
        match=r"step \d+: the loss term count is not finite for frame 000005; first seen in the points themselves",
    ):
        run(tmp_path, frames=TinyFrames(broken=5))


def test_a_layer_that_overflows_is_named(tmp_path):
    class Overflowing(TinyDetector):
        def __init__(self):
            super().__init__()
            self.first.register_forward_hook(lambda module, inputs, output: output / 0.0)

    with pytest.raises(InputError, match="first seen in the output of layer student"):
        run(tmp_path, detector=Overflowing())


def test_validation_figures_are_logged_and_the_best_weights_handed_on(tmp_path):
    scores = iter([1.0, 9.0, 3.0])
    seen = []

    def validate(detector):
        seen.append({key: value.clone() for key, value in detector.state_dict().items()})
        return {"score": next(scores)}

    settings = TrainingSettings(steps=20, batch_size=4, validate_every=5, keep_best=True)
    final = run(tmp_path, settings, validate=validate)
    assert same(final, seen[1])
    rows = [row for row in RunFolder(tmp_path).read_log() if row["kind"] == "validation"]
    assert [(row["step"], row["score"]) for row in rows] == [(5, 1.0), (10, 9.0), (15, 3.0)]


def test_where_lower_is_better_the_lowest_is_handed_on_and_no_figure_judges_nothing(tmp_path):
    figures = iter([{}, {"error": 2.0}, {"error": 3.0}])
    seen = []

    def validate(detector):
        seen.append({key: value.clone() for key, value in detector.state_dict().items()})
        return next(figures)

    settings = TrainingSettings(steps=20, batch_size=4, validate_every=5, keep_best=True)
    final = run(tmp_path, settings, validate=validate, higher_is_better=False)
    assert same(final, seen[1])


def test_bf16_autocast_trains(tmp_path):
    state = run(tmp_path, TrainingSettings(steps=5, batch_size=4, precision="bf16"))
    assert all(torch.isfinite(value).all() for value in state.values())


def test_an_unreadable_point_of_resumption_is_refused_with_the_remedy(tmp_path):
    RunFolder(tmp_path).resume.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read .* delete it"):
        run(tmp_path, resume=True)


def test_settings_that_ask_for_nothing_are_refused():
    with pytest.raises(InputError, match=r"training.epochs is 0; give a number above 0"):
        TrainingSettings(steps=0, epochs=0)
    with pytest.raises(InputError, match="training.precision"):
        TrainingSettings(precision="fp8")


def test_bad_input_found_by_a_loader_process_is_still_one_sentence(tmp_path):
    class Damaged(TinyFrames):
        def __getitem__(self, key):
            raise InputError("000003.bin: 7 bytes are no whole points; copy the file again")

    with pytest.raises(InputError) as raised:
        run(tmp_path, TrainingSettings(steps=5, batch_size=4, workers=1), Damaged())
    assert str(raised.value) == "000003.bin: 7 bytes are no whole points; copy the file again"
