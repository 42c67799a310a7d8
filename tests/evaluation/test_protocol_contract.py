"""What every protocol promises to intervals, report and comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lidistill.array_files import save_arrays
from lidistill.datasets import PROTOCOLS
from lidistill.evaluation.intervals import bootstrap
from lidistill.evaluation.scores import Scores
from lidistill.types import Boxes, InputError
from tests.evaluation.protocol_examples import FRAMES, example_of, labels_as_detections
from tests.evaluation.second_protocol import MissProtocol

TABLE = {**PROTOCOLS, MissProtocol.name: MissProtocol()}


@pytest.fixture(scope="module", params=sorted(TABLE))
def example(request):
    frames, classes = FRAMES[request.param]()
    return example_of(TABLE[request.param], frames, classes)


@pytest.fixture(scope="module")
def scored(example):
    return example.protocol.evaluate(example.predictions, example.frames)


def same(a, b):
    return (a is None) == (b is None) and (a is None or a == pytest.approx(b, abs=1e-9))


def test_its_name_is_its_key(example, scored):
    assert TABLE[example.protocol.name] is example.protocol
    assert scored[0].protocol == example.protocol.name


def test_each_frame_taken_once_gives_the_score(scored):
    scores, frames = scored
    whole = np.ones(len(frames.frame_ids), dtype=np.int64)
    for key, value in scores.values.items():
        assert same(frames.estimator(key)(whole), value), key


@pytest.mark.parametrize("rows", [[0, 3, 5, 6, 9, 12], [7], [13, 2]])
def test_some_frames_taken_score_as_they_do_alone(example, scored, rows):
    _, frames = scored
    few = example.only(rows)
    alone, _ = few.protocol.evaluate(few.predictions, few.frames)
    weights = np.bincount([frames.frame_ids.index(frame.id) for frame in few.frames], minlength=len(frames.frame_ids))
    for key, value in alone.values.items():
        assert same(frames.estimator(key)(weights), value), key


def test_a_score_of_frames_does_not_depend_on_how_often_all_are_taken(scored):
    scores, frames = scored
    twice = np.full(len(frames.frame_ids), 2, dtype=np.int64)
    value = frames.estimator(scores.main)(twice)
    assert value is not None and np.isfinite(value)


def test_the_order_of_frames_does_not_matter(example, scored):
    turned, frames = example.protocol.evaluate(example.predictions, iter(example.frames[::-1]))
    assert all(same(turned.values[key], value) for key, value in scored[0].values.items())
    assert set(frames.frame_ids) == set(scored[1].frame_ids)


def test_no_frame_taken_has_no_score(scored):
    scores, frames = scored
    assert frames.estimator(scores.main)(np.zeros(len(frames.frame_ids), dtype=np.int64)) is None


def test_scores_survive_json(scored):
    scores, _ = scored
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False))) == scores


def test_what_is_saved_reads_back(example, scored, tmp_path):
    scores, frames = scored
    frames.save(tmp_path / "matches.npz")
    again = example.protocol.load(tmp_path / "matches.npz")
    assert again.frame_ids == frames.frame_ids
    weights = np.random.default_rng(0).integers(0, 3, size=len(frames.frame_ids))
    for key in scores.values:
        assert again.estimator(key)(weights) == frames.estimator(key)(weights), key
    assert bootstrap(again, scores.main, 20) == bootstrap(frames, scores.main, 20)


def test_the_layout_holds_the_main_score_and_only_scores_there_are(scored):
    scores, _ = scored
    assert scores.main in scores.layout.summary.values()
    assert scores.main in scores.layout.gains.all_keys
    assert scores.layout.all_keys <= scores.values.keys()
    assert scores.layout.headline


def test_scales_agree(example, scored):
    scores, frames = scored
    assert scores.scale == example.protocol.scale
    assert scores.scale.unit
    assert all(frames.scale(key) == scores.scale_of(key) for key in scores.values)


def test_the_labels_themselves_score_better_than_nothing(example, scored):
    seeing = example.with_boxes(labels_as_detections(example.frames))
    blind = example.with_boxes([Boxes.empty(with_scores=True)] * len(example.frames))
    best, worst = (each.protocol.evaluate(each.predictions, each.frames)[0].headline for each in (seeing, blind))
    scale = example.protocol.scale
    worst = scale.worst if worst is None else worst
    assert best is not None and worst is not None
    assert scale.improvement(best - worst) > 0
    assert scale.improvement(scored[0].headline - worst) > 0
    assert scale.improvement(best - scored[0].headline) > 0


def test_an_unknown_score_is_refused(scored):
    with pytest.raises(InputError, match="unknown score 'no such score'"):
        scored[1].estimator("no such score")


def test_frames_that_were_not_predicted_and_predictions_of_no_frame_are_refused(example):
    few = example.only([0, 1])
    with pytest.raises(InputError, match=f"frame {example.frames[2].id}: no predictions"):
        few.protocol.evaluate(few.predictions, example.frames[:3])
    with pytest.raises(InputError, match=f"1 frames that are not in the split, such as {example.frames[1].id}"):
        few.protocol.evaluate(few.predictions, example.frames[:1])


def test_a_file_of_another_protocol_is_refused_with_the_remedy(example, tmp_path):
    others = [protocol for protocol in TABLE.values() if protocol is not example.protocol]
    assert others
    for other in others:
        frames, classes = FRAMES[other.name]()
        foreign = example_of(other, frames, classes)
        other.evaluate(foreign.predictions, foreign.frames)[1].save(tmp_path / "matches.npz")
        with pytest.raises(InputError, match=r"matches\.npz: .*lidistill evaluate"):
            example.protocol.load(tmp_path / "matches.npz")


def test_a_missing_or_damaged_file_and_one_of_another_format_are_refused_with_the_remedy(example, scored, tmp_path):
    path = tmp_path / "matches.npz"
    with pytest.raises(InputError, match="missing"):
        example.protocol.load(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"matches\.npz: .*lidistill evaluate"):
        example.protocol.load(path)
    scored[1].save(path)
    with np.load(path) as file:
        arrays = dict(file)
    save_arrays(path, {**arrays, "format": np.array(99)})
    with pytest.raises(InputError, match="has format 99"):
        example.protocol.load(path)


def test_predictions_of_other_tools_are_read_or_refused_with_what_can_be_given(example, tmp_path):
    strange = tmp_path / "strange.txt"
    strange.write_text("?")
    with pytest.raises(InputError, match=r"strange\.txt: .*give .*predictions\.npz"):
        example.protocol.evaluate_foreign(strange, example.predictions.classes, example.frames)


def test_a_calibration_that_no_file_of_the_protocol_needs_is_refused(tmp_path):
    assert MissProtocol().result_writer(tmp_path, None) is None
    with pytest.raises(InputError, match="leave out --calibration"):
        MissProtocol().result_writer(tmp_path, tmp_path / "calib")
