import json
import math
from dataclasses import replace

import pytest
import torch

from lidistill.distillation.certificate import certify
from lidistill.types import Boxes, InputError

CLASSES = ("Car", "Pedestrian", "Cyclist")


def scene(num_frames=4, objects=6, seed=0):
    """Labelled cars well apart, all turned to some side."""
    draw = torch.Generator().manual_seed(seed)
    frames = []
    for _ in range(num_frames):
        places = torch.stack(
            [torch.arange(objects) * 8.0, torch.rand(objects, generator=draw) * 40 - 20, torch.full((objects,), -1.0)],
            dim=1,
        )
        sizes = torch.tensor([[4.0, 1.7, 1.5]]).expand(objects, 3)
        yaw = 0.3 + 0.5 * torch.rand(objects, 1, generator=draw)
        frames.append(Boxes(torch.cat([places, sizes, yaw], dim=1), torch.zeros(objects).long()))
    return frames


def detected(truths, change=None):
    """Good detections: a little off, with scores; `change` alters their numbers."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for boxes in truths:
        geometry = boxes.geometry + 0.05 * torch.randn(boxes.geometry.shape, generator=draw)
        found.append(
            Boxes(
                geometry if change is None else change(geometry.clone()),
                boxes.labels,
                torch.rand(len(boxes), generator=draw),
            )
        )
    return found


def healthy(**changes):
    truths = scene()
    values = {
        "scores": {"mAP": 61.2, "car": 80.0},
        "main": "mAP",
        "limit": 20.0,
        "teacher_classes": CLASSES,
        "dataset_classes": CLASSES,
        "detections": detected(truths),
        "truths": truths,
        "state": {
            "conv.weight": torch.randn(3, 3),
            "norm.running_var": torch.ones(3),
            "norm.num_batches_tracked": torch.tensor(9),
        },
        "missing_keys": (),
        "unexpected_keys": (),
        "teacher_bn": "eval",
    }
    return certify(**{**values, **changes})


def failed(certificate):
    return {check.name: check.detail for check in certificate.checks if not check.passed}


def test_a_healthy_teacher_passes_every_check():
    certificate = healthy()
    assert certificate.passed
    assert certificate.sentence() == ""
    assert [check.name for check in certificate.checks] == [
        "score",
        "weights",
        "batch_norm",
        "detections",
        "classes",
        "box_convention",
    ]


def test_findings_survive_a_trip_through_json():
    content = json.loads(json.dumps(healthy().to_dict(), allow_nan=False))
    assert content["passed"] is True
    assert content["checks"][0] == {"name": "score", "passed": True, "detail": "mAP is 61.2, at least 20"}


def test_the_sentence_names_every_failed_check():
    certificate = healthy(scores={"mAP": 3.0}, missing_keys=["head.bias"])
    assert not certificate.passed
    assert certificate.sentence() == (
        "score: mAP is 3, below the minimum of 20; train the teacher longer or lower the minimum "
        "(distillation.minimum_score); "
        "weights: the checkpoint has 1 missing (head.bias) keys; load the checkpoint that belongs to these settings"
    )


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_teacher_without_a_score_is_refused(value):
    assert "mAP has no value" in failed(healthy(scores={"mAP": value}))["score"]
    assert "NDS has no value" in failed(healthy(main="NDS"))["score"]


def test_a_score_at_the_minimum_passes():
    assert healthy(scores={"mAP": 20.0}).passed


def test_where_lower_is_better_a_score_above_the_limit_is_refused():
    metres = {"main": "error", "limit": 0.5, "unit": "m", "higher_is_better": False}
    assert healthy(scores={"error": 0.5}, **metres).checks[0].detail == "error is 0.5 m, at most 0.5 m"
    assert failed(healthy(scores={"error": 0.81}, **metres))["score"] == (
        "error is 0.81 m, above the maximum of 0.5 m; train the teacher longer or raise the maximum "
        "(distillation.minimum_score)"
    )


def test_without_a_limit_any_score_passes_but_there_must_be_one():
    assert healthy(limit=None).checks[0].detail == "mAP is 61.2, with no limit set"
    assert healthy(limit=None, scores={"mAP": -3.0}).passed
    assert not healthy(limit=None, scores={"mAP": None}).passed


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    assert (
        "1 tensors hold NaN or infinite values (conv.weight)"
        in failed(healthy(state={"conv.weight": torch.tensor([1.0, bad])}))["weights"]
    )


def test_keys_that_do_not_fit_are_refused_and_a_few_are_named():
    detail = failed(healthy(unexpected_keys=["d", "c", "b", "a"], missing_keys=["x"]))["weights"]
    assert "1 missing (x) and 4 unexpected (a, b, c, ...)" in detail
    assert "the teacher has none" in failed(healthy(state={}))["weights"]


@pytest.mark.parametrize("variance", [[1.0, -0.1], [1.0, float("nan")], [0.0, 0.0]])
def test_impossible_running_variances_are_refused(variance):
    assert (
        "running variances of n.running_var are not finite and positive"
        in failed(healthy(state={"n.running_var": torch.tensor(variance)}))["batch_norm"]
    )


def test_a_dead_channel_is_no_reason_to_refuse():
    assert healthy(state={"n.running_var": torch.tensor([0.0, 1.0])}).passed


def test_statistics_that_saw_no_batch_are_refused_unless_batch_statistics_are_used():
    state = {"n.running_var": torch.ones(2), "n.num_batches_tracked": torch.tensor(0)}
    assert "1 layers have seen no batch" in failed(healthy(state=state))["batch_norm"]
    assert healthy(state=state, teacher_bn="train-frozen").passed
    assert (
        "the mode 'train' is unknown; use one of eval, train-frozen"
        in failed(healthy(teacher_bn="train"))["batch_norm"]
    )


def test_running_statistics_of_other_data_are_refused():
    outputs = torch.full((5,), 3.0), torch.full((5,), 1.0)
    assert (
        "differ by 200 %: the running statistics describe other data"
        in failed(healthy(outputs_eval_vs_batch=outputs))["batch_norm"]
    )
    assert healthy(outputs_eval_vs_batch=outputs, teacher_bn="train-frozen").passed
    assert healthy(outputs_eval_vs_batch=(outputs[0], outputs[0] * 1.1)).passed
    assert not healthy(outputs_eval_vs_batch=(torch.full((5,), float("nan")), outputs[1])).passed


def test_a_teacher_that_detects_nothing_is_refused():
    nothing = [Boxes.empty(with_scores=True) for _ in range(4)]
    assert (
        failed(healthy(detections=nothing))["detections"]
        == "the teacher detects nothing in 4 frames with 24 labelled objects; train it first"
    )


def test_detections_that_are_not_finite_are_refused():
    def spoil(geometry):
        geometry[0, 2] = float("nan")
        return geometry

    assert "4 of 24 detections have NaN" in failed(healthy(detections=detected(scene(), spoil)))["detections"]


def test_other_classes_or_another_order_is_refused():
    assert "must agree, also in order" in failed(healthy(teacher_classes=("Pedestrian", "Car", "Cyclist")))["classes"]
    assert "the teacher's classes are car and the dataset's Car" in failed(healthy(teacher_classes=("car",)))["classes"]


def test_labels_that_mean_other_classes_are_refused():
    mislabelled = [replace(boxes, labels=boxes.labels + 2) for boxes in detected(scene())]
    assert (
        "only 0 % of the matches have the right class (Car is detected as Cyclist)"
        in failed(healthy(detections=mislabelled))["classes"]
    )


def swap_sides(boxes):
    return boxes[:, [0, 1, 2, 4, 3, 5, 6]]


def turn(boxes):
    boxes[:, 6] += math.pi / 2
    return boxes


def negate(boxes):
    boxes[:, 6] *= -1
    return boxes


def sink(boxes):
    boxes[:, 2] -= boxes[:, 5] / 2
    return boxes


def lift(boxes):
    boxes[:, 2] += boxes[:, 5] / 2
    return boxes


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (swap_sides, "likely length and width are swapped; convert"),
        (turn, "likely the yaw is off by 90 degrees; convert"),
        (negate, "likely yaw negated; convert"),
        (sink, "likely z is the bottom of the box instead of its centre; convert"),
        (lift, "likely z lies half a height above the centre; convert"),
        (
            lambda boxes: sink(swap_sides(boxes)),
            "likely length and width are swapped and z is the bottom of the box instead of its centre; convert",
        ),
        (lambda boxes: turn(negate(boxes)), "likely the yaw is off by 90 degrees and the yaw is negated; convert"),
    ],
)
def test_boxes_of_another_convention_are_refused_and_the_mistake_is_named(change, mistake):
    certificate = healthy(detections=detected(scene(), change))
    assert set(failed(certificate)) == {"box_convention"}
    assert mistake in failed(certificate)["box_convention"]


def test_poor_boxes_of_the_right_convention_pass():
    draw = torch.Generator().manual_seed(5)

    def blur(boxes):
        boxes[:, :2] += 0.4 * torch.randn(len(boxes), 2, generator=draw)
        boxes[:, 3:6] *= 1 + 0.25 * torch.rand(len(boxes), 3, generator=draw)
        boxes[:, 6] += 0.5 * torch.randn(len(boxes), generator=draw)
        return boxes

    assert healthy(detections=detected(scene(), blur)).passed


def test_headings_that_point_backwards_are_no_reason_to_refuse():
    def reverse(boxes):
        boxes[:, 6] += math.pi
        return boxes

    assert healthy(detections=detected(scene(), reverse)).passed


def test_detections_far_from_every_object_are_not_judged():
    def away(boxes):
        boxes[:, 1] += 60
        return boxes

    details = {check.name: check.detail for check in healthy(detections=detected(scene(), away)).checks}
    assert details["box_convention"] == "too few detections lie on objects to judge"


def test_of_several_detections_on_an_object_the_best_is_compared():
    truths = scene()
    good, bad = detected(truths), detected(truths, turn)
    both = [
        Boxes(
            torch.cat([b.geometry, a.geometry]),
            torch.cat([b.labels + 1, a.labels]),
            torch.cat([b.scores * 0.1, a.scores * 0.1 + 0.5]),
        )
        for a, b in zip(good, bad, strict=True)
    ]
    assert healthy(detections=both).passed


def test_other_numbers_of_frames_are_an_error():
    with pytest.raises(InputError, match="detections of 4 frames and labels of 3"):
        healthy(truths=scene()[:3])
