import json
import shutil

import pytest

from lidistill.datasets import PROTOCOLS
from lidistill.report.measures.runs import is_simulated, read_runs
from lidistill.run_folder import RunFolder
from lidistill.types import InputError

COUNTS = [f"{name}/{level}" for name in ("Car", "Pedestrian", "Cyclist") for level in ("easy", "moderate", "hard")]


@pytest.fixture
def copies(trio, tmp_path):
    """The three folders, free to be changed."""
    return [type(path)(shutil.copytree(path, tmp_path / path.name)) for path in trio]


def edit_scores(path, **changes):
    scores = RunFolder(path).scores
    scores.write_text(json.dumps({**json.loads(scores.read_text()), **changes}))


def edit_experiment(path, **changes):
    folder = RunFolder(path)
    folder.write_experiment({**folder.read_experiment(), **changes})


def test_the_teacher_is_first_whatever_the_order_given(trio):
    assert [run.role for run in read_runs(trio[::-1], PROTOCOLS)] == ["teacher", "plain", "distilled"]
    assert [run.label for run in read_runs(trio[::-1], PROTOCOLS)] == ["Teacher", "Plain student", "Distilled student"]


def test_a_role_given_twice_is_told_apart_by_folder(trio, tmp_path):
    other = shutil.copytree(trio[2], tmp_path / "other")
    same_name = shutil.copytree(trio[2], tmp_path / "deep" / "other")
    labels = [run.label for run in read_runs([*trio, other], PROTOCOLS)]
    assert labels[2:] == ["Distilled student (student)", "Distilled student (other)"]
    assert len({run.label for run in read_runs([*trio, other, same_name], PROTOCOLS)}) == 5
    assert len({run.colour for run in read_runs([*trio, other, same_name], PROTOCOLS)}) == 5


def test_a_run_reads_its_figures(runs):
    teacher, _, student = runs
    assert teacher.methods == ()
    assert student.methods == ("pointdistiller", "logits")
    assert teacher.parameters == 4_830_000
    assert teacher.value("strict/3d/mean/R40/moderate") > student.value("strict/3d/mean/R40/moderate") > 0
    assert teacher.value("no such score") is None
    assert student.setting("distillation", "teacher_bn") == "eval"
    assert teacher.setting("distillation", "teacher_bn") is None


def test_a_run_without_scores_profile_and_log_is_read(copies):
    for name in ("scores.json", "profile.json", "log.jsonl"):
        (copies[0] / name).unlink()
    run = read_runs(copies[:1], PROTOCOLS)[0]
    assert run.scores is run.cost is None
    assert run.log == []
    assert run.value("strict/3d/mean/R40/moderate") is run.parameters is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "kitti", "simulated": False}, "simulated data"),
        ({"split": "train"}, "the split"),
        ({"frames": 31}, "the number of frames"),
        ({"overlap": {"strict": {"Car": 0.5}}}, "the overlap limits"),
        ({"main": "strict/3d/Car/R40/moderate"}, "the headline score"),
        ({"protocol": "waymo"}, "the metric 'kitti' in one, 'waymo' in the other"),
        ({"scale": {"unit": "NDS"}}, "the scale of the scores"),
        ({"counts": {**dict.fromkeys(COUNTS, 7), "Car/easy": 1}}, "the labelled objects"),
    ],
)
def test_runs_scored_otherwise_are_refused_by_name(copies, changes, words):
    if "dataset" in changes:
        edit_experiment(copies[1], data={"name": "kitti"})
    edit_scores(copies[1], **changes)
    with pytest.raises(InputError, match=words) as error:
        read_runs(copies, PROTOCOLS)
    assert str(copies[0]) in str(error.value)
    assert str(copies[1]) in str(error.value)


@pytest.mark.parametrize("key", ["dataset_version", "trained_on_version"])
def test_runs_of_different_editions_of_the_frames_are_refused(copies, key):
    edit_scores(copies[1], **{key: "simulator 3"})
    with pytest.raises(InputError, match=r"not scored alike: the version of .* not recorded in one, 'simulator 3' in"):
        read_runs(copies, PROTOCOLS)
    for path in copies:
        edit_scores(path, **{key: "simulator 3"})
    read_runs(copies, PROTOCOLS)


def test_simulated_and_real_runs_are_kept_apart_before_they_are_scored(copies):
    (copies[1] / "scores.json").unlink()
    edit_experiment(copies[1], data={"name": "kitti"})
    with pytest.raises(InputError, match="never compared"):
        read_runs(copies, PROTOCOLS)


def test_simulated_is_recognised_by_either_file(copies, runs):
    assert is_simulated(runs)
    edit_scores(copies[0], simulated=False, dataset="kitti")
    assert is_simulated(read_runs(copies[:1], PROTOCOLS))  # the settings still say simulated
    edit_experiment(copies[0], data={"name": "kitti"})
    assert not is_simulated(read_runs(copies[:1], PROTOCOLS))


def test_folders_that_are_no_runs_are_refused(trio, tmp_path):
    with pytest.raises(InputError, match="no run folders"):
        read_runs([], PROTOCOLS)
    with pytest.raises(InputError, match="given twice"):
        read_runs([trio[0], trio[0].parent / "plain" / ".." / "teacher"], PROTOCOLS)
    with pytest.raises(InputError, match="not a run folder"):
        read_runs([tmp_path], PROTOCOLS)


def test_scores_of_an_earlier_version_are_refused_with_the_command_that_makes_them_again(copies):
    content = json.loads((copies[0] / "scores.json").read_text())
    del content["format"]
    (copies[0] / "scores.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"an earlier version.*run `lidistill evaluate {copies[0]}` again"):
        read_runs(copies[:1], PROTOCOLS)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"values": {}}', "not json"])
def test_damaged_scores_are_named(copies, content):
    (copies[0] / "scores.json").write_text(content)
    with pytest.raises(InputError, match=r"scores\.json"):
        read_runs(copies[:1], PROTOCOLS)


def test_a_log_that_was_cut_off_is_read_up_to_there_and_a_strange_line_is_named(copies):
    step = '{"step": 1, "kind": "train", "time_s": 0.5, "loss": 2.0}\n'
    (copies[0] / "log.jsonl").write_text(step + '{"step": 2, "ki')
    assert len(read_runs(copies[:1], PROTOCOLS)[0].log) == 1
    (copies[0] / "log.jsonl").write_text(step + "[1]\n" + step)
    with pytest.raises(InputError, match=r"log\.jsonl: line 2 holds no JSON object"):
        read_runs(copies[:1], PROTOCOLS)
