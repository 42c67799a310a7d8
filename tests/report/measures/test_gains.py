import dataclasses
import shutil

import numpy as np
import pytest

from lidistill.datasets import PROTOCOLS
from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.score_names import AP
from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.intervals import paired_bootstrap
from lidistill.evaluation.scale import Scale
from lidistill.report.measures import gains
from lidistill.report.measures.gains import Pair, gain_sentence, pair_runs, recovered_sentence
from lidistill.report.measures.runs import read_runs
from lidistill.report.measures.stored_matches import unknown_protocols
from tests.evaluation.small_scores import small_scores
from tests.report.fake_runs import make_frames, write_run

MAIN = "strict/3d/mean/R40/moderate"


def with_score(run, value, **changes):
    values = {} if value is None else {MAIN: value}
    scores = None if value is None else small_scores(values, MAIN, AP)
    return dataclasses.replace(run, scores=scores, **changes)


def pair_of(runs, teacher, plain, distilled, low=None, high=None):
    """A pair with given headline scores."""
    teacher, plain, distilled = (
        with_score(run, value) for run, value in zip(runs, (teacher, plain, distilled), strict=True)
    )
    value = None if plain.scores is None or distilled.scores is None else distilled.value(MAIN) - plain.value(MAIN)
    lead = None if plain.scores is None or teacher.scores is None else teacher.value(MAIN) - plain.value(MAIN)
    gain = Estimate(value, low, high, scale=AP)
    return Pair(plain, distilled, teacher, {MAIN: gain}, MAIN, Estimate(lead, scale=AP))


def test_gain_is_distilled_minus_plain_with_the_bootstrap_interval(runs, pair):
    _, plain, distilled = runs
    assert pair.headline.value == distilled.value(MAIN) - plain.value(MAIN)
    interval = paired_bootstrap(
        FrameMatches.load(plain.folder.matches),
        FrameMatches.load(distilled.folder.matches),
        MAIN,
        resamples=gains.RESAMPLES,
        seed=gains.SEED,
    )
    assert (pair.headline.low, pair.headline.high) == (interval.low, interval.high)
    assert pair.headline.low <= pair.headline.high


def test_every_class_and_difficulty_has_a_gain(pair):
    assert len(pair.gains) == 4 * 3
    assert all(gain.has_interval for gain in pair.gains.values())


def test_share_of_the_lead_is_gain_over_lead(runs, pair):
    teacher, plain, distilled = (run.value(MAIN) for run in runs)
    assert pair.recovered == pytest.approx((distilled - plain) / (teacher - plain))
    assert pair_of(runs, 60, 40, 45).recovered == pytest.approx(0.25)
    assert pair_of(runs, 60, 40, 65).recovered == pytest.approx(1.25)


@pytest.mark.parametrize("teacher", [40, 35, None])
def test_a_teacher_that_is_not_ahead_has_no_lead_to_recover(runs, teacher):
    pair = pair_of(runs, teacher, 40, 45)
    assert pair.recovered is None
    assert ("not ahead" in recovered_sentence(pair)) == (teacher is not None)
    assert "unknown" in recovered_sentence(dataclasses.replace(pair, teacher=None))


@pytest.mark.parametrize(
    ("interval", "verdict", "words"),
    [
        (
            (1.2, 5.4),
            "gain",
            "From one seed, distillation lifts the student by 3.4 AP (95% interval over frames +1.2 to +5.4).",
        ),
        (
            (-0.9, 5.0),
            "unproven",
            "From one seed, no gain is shown: +3.4 AP, and the 95% interval over frames −0.9 to +5.0 includes zero.",
        ),
        ((0.0, 5.0), "unproven", "includes zero"),
        ((0.04, 5.0), "unproven", "0.0 to +5.0 includes zero"),
        ((0.06, 5.0), "gain", "+0.1 to +5.0"),
        ((None, None), "unproven", "unknown"),
    ],
)
def test_the_sentence_follows_the_interval(runs, interval, verdict, words):
    pair = pair_of(runs, 60, 40, 43.4, *interval)
    assert pair.headline.verdict == verdict
    assert words in gain_sentence(pair.headline)


def test_a_lead_that_is_not_shown_is_not_divided_by(runs):
    pair = dataclasses.replace(pair_of(runs, 42, 40, 43), lead=Estimate(2.0, -1.0, 5.0, scale=AP))
    assert pair.recovered is None
    assert (
        recovered_sentence(pair)
        == "The teacher's own lead of 2.0 AP is not shown (95% interval −1.0 to +5.0), so no share of it is stated."
    )
    ahead = dataclasses.replace(pair, lead=Estimate(2.0, 1.0, 5.0, scale=AP))
    assert ahead.recovered == 1.5
    assert recovered_sentence(ahead).startswith("The distilled student surpasses the teacher here: its gain is 150%")


def test_the_lead_is_teacher_minus_plain_with_its_own_interval(runs, pair):
    assert pair.lead.value == runs[0].value(MAIN) - runs[1].value(MAIN)
    assert pair.lead.low <= pair.lead.value <= pair.lead.high


def test_a_loss_is_called_a_loss(runs):
    pair = pair_of(runs, 60, 40, 38.8, -2.0, -0.4)
    assert pair.headline.verdict == "loss"
    assert (
        gain_sentence(pair.headline)
        == "From one seed, distillation lowers the student by 1.2 AP (95% interval over frames −2.0 to −0.4)."
    )
    assert recovered_sentence(pair).startswith("None of the teacher's lead of 20.0 AP")


def test_a_missing_score_is_no_gain(runs):
    pair = pair_of(runs, 60, None, 40)
    assert pair.headline.verdict == "none"
    assert "No gain can be stated" in gain_sentence(pair.headline)
    assert pair.recovered is None


def test_pairs_prefer_the_same_network_then_the_same_seed(runs):
    teacher, plain, distilled = runs
    other_net = dataclasses.replace(
        plain, experiment={**plain.experiment, "detector": {"name": "second"}}, label="other net"
    )
    other_seed = dataclasses.replace(plain, experiment={**plain.experiment, "seed": 5}, label="other seed")
    unscored = [dataclasses.replace(run, scores=None) for run in (teacher, other_net, other_seed, plain, distilled)]
    assert [pair.plain.label for pair in pair_runs(unscored)] == ["Plain student"]
    assert [pair.plain.label for pair in pair_runs([unscored[0], unscored[1], unscored[2], unscored[4]])] == [
        "other seed"
    ]
    assert [pair.same_network for pair in pair_runs([unscored[1], unscored[4]])] == [False]
    assert pair_runs(unscored[:4]) == []
    assert pair_runs([unscored[4]]) == []


def test_the_teacher_named_in_the_settings_is_taken(runs, tmp_path):
    teacher, plain, distilled = (dataclasses.replace(run, scores=None) for run in runs)
    named = dataclasses.replace(teacher, folder=type(teacher.folder)(tmp_path / "named"), label="named")
    lessons = {**distilled.experiment["distillation"], "teacher": str(tmp_path / "x" / ".." / "named")}
    distilled = dataclasses.replace(distilled, experiment={**distilled.experiment, "distillation": lessons})
    assert pair_runs([teacher, named, plain, distilled])[0].teacher.label == "named"


def test_without_matches_there_is_a_gain_but_no_interval(trio, tmp_path):
    folders = [shutil.copytree(path, tmp_path / path.name) for path in trio]
    (folders[1] / "matches.npz").unlink()
    pair = pair_runs(read_runs(folders, PROTOCOLS))[0]
    assert pair.headline.value is not None
    assert not any(gain.has_interval for gain in pair.gains.values())


def spoiled(path, **changes):
    """Other arrays in a file of arrays; None takes one away."""
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"not an archive"), "not a readable .npz file"),
        (lambda path: spoiled(path, protocol=np.array("centres")), "written by the protocol 'centres', not kitti"),
        (lambda path: spoiled(path, format=np.array(99)), "has format 99"),
        (lambda path: spoiled(path, format=None), "an earlier version or another program wrote it"),
        (lambda path: spoiled(path, truths=None), "holds no array 'truths'"),
        (
            lambda path: shutil.copy(path.parent.parent / "teacher" / "matches.npz", path),
            "come from different evaluations",
        ),
    ],
)
def test_foreign_and_damaged_matches_leave_the_gain_without_an_interval_and_say_why(trio, tmp_path, spoil, said):
    folders = [shutil.copytree(path, tmp_path / path.name) for path in trio]
    spoil(folders[2] / "matches.npz")
    [pair] = pair_runs(read_runs(folders, PROTOCOLS))
    assert pair.headline.value is not None
    assert not any(gain.has_interval for gain in pair.gains.values())
    [missing] = pair.missing
    assert missing.text.startswith("Distilled student: ")
    assert said in missing.text
    assert missing.command == f"lidistill evaluate {folders[2]}"
    assert pair.lead.has_interval  # of teacher and plain student, whose files are sound


def test_matches_of_other_frames_leave_the_gain_without_an_interval(trio, tmp_path):
    plain = shutil.copytree(trio[1], tmp_path / "plain")
    with np.load(plain / "matches.npz") as file:
        names = np.array([f"x{name}" for name in file["frame_ids"]])
    spoiled(plain / "matches.npz", frame_ids=names)
    [pair] = pair_runs(read_runs([plain, trio[2]], PROTOCOLS))
    assert not pair.headline.has_interval
    assert "different frames" in pair.missing[0].text


def test_runs_of_a_protocol_that_is_not_known_stand_without_intervals(trio):
    runs = read_runs(trio, {})
    [pair] = pair_runs(runs)
    assert pair.headline.value is not None
    assert not pair.headline.has_interval
    assert pair.missing == ()
    assert unknown_protocols(runs) == (
        "No interval is given, because the protocol 'kitti' is unknown to this installation."
    )
    assert unknown_protocols(read_runs(trio, PROTOCOLS)) == ""


METRES = Scale("m", decimals=2, higher_is_better=False)


@pytest.mark.parametrize(
    ("gain", "verdict", "said"),
    [
        (
            Estimate(-0.3, -0.42, -0.11),
            "gain",
            "improves the student by 0.30 m (95% interval over frames −0.42 to −0.11).",
        ),
        (Estimate(0.3, 0.11, 0.42), "loss", "worsens the student by 0.30 m (95% interval over frames +0.11 to +0.42)."),
        (Estimate(-0.3, -0.42, -0.004), "unproven", "no gain is shown: −0.30 m, and the 95% interval over frames"),
    ],
)
def test_where_lower_is_better_a_negative_gain_is_the_good_one(gain, verdict, said):
    gain = dataclasses.replace(gain, scale=METRES)
    assert gain.verdict == verdict
    assert said in gain_sentence(gain)


def test_where_lower_is_better_the_lead_and_its_share_are_positive(runs):
    teacher, plain, distilled = (
        dataclasses.replace(run, scores=small_scores({"d": value}, "d", METRES))
        for run, value in zip(runs, (0.5, 1.5, 1.0), strict=True)
    )
    gain, lead = (Estimate(value, scale=METRES) for value in (-0.5, -1.0))
    pair = Pair(plain, distilled, teacher, {"d": gain}, "d", lead)
    assert pair.recovered == pytest.approx(0.5)
    assert recovered_sentence(pair) == (
        "Distillation recovers 50% of the teacher's lead of 1.00 m over the plain student."
    )
    behind = dataclasses.replace(pair, lead=Estimate(1.0, scale=METRES))
    assert behind.recovered is None
    assert "The teacher (0.50) is not ahead of the plain student (1.50)" in recovered_sentence(behind)


def test_a_run_against_itself_gains_nothing(tmp_path):
    frames = make_frames(6)
    folders = [write_run(tmp_path / role, role, frames, quality=(0.9, 0.03)) for role in ("plain", "distilled")]
    for name in ("scores.json", "matches.npz"):
        shutil.copy(folders[0] / name, folders[1] / name)
    pair = pair_runs(read_runs(folders, PROTOCOLS))[0]
    assert {(gain.value, gain.low, gain.high) for gain in pair.gains.values() if gain.value is not None} == {
        (0.0, 0.0, 0.0)
    }
    assert pair.headline.verdict == "unproven"
