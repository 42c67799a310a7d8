import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from lidistill.datasets.kitti import metric as kitti
from lidistill.datasets.kitti.curves import ceiling
from lidistill.datasets.kitti.metric import evaluate_objects, match_frames
from lidistill.datasets.kitti.object_files import read_objects
from lidistill.datasets.kitti.score_names import DIFFICULTIES
from lidistill.types import InputError
from tests.evaluation.kitti_scenes import SIZES, objects, street
from tests.reference.kitti_metric import kitti_scores

CLASSES = ("Car", "Pedestrian", "Cyclist")
ENOUGH = 50  # frames with one object each: from 41 objects on, all found, every recall step is reached
AREA = {"truncation": -1, "occlusion": -1, "alpha": -10, "location": (-1000, -1000, -1000), "rotation_y": -10}
ELSEWHERE = {"box": (500, 0, 600, 100), "location": (15, 1.5, 20)}


def scored(truth_rows, found_rows, scores, frames=ENOUGH, classes=CLASSES):
    """Values of `frames` equal frames."""
    truths = [objects(*truth_rows)] * frames
    found = [objects(*found_rows, scores=scores)] * frames
    return evaluate_objects(truths, found, classes).values


@pytest.mark.parametrize("case", ["c03_crowded", "c05_car_only", "c11_few_objects"])
def test_the_official_program_gives_the_same_figures(reference, tmp_path, case):
    with tarfile.open(reference("metrics", "kitti_cases.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    expected = json.loads(reference("metrics", "kitti_expected.json").read_text())[case]
    files = sorted((tmp_path / case / "label_2").glob("*.txt"))
    truths = [read_objects(file, scores=False) for file in files]
    found = [read_objects(tmp_path / case / "det" / "data" / file.name, scores=True) for file in files]
    values = evaluate_objects(truths, found, CLASSES).values
    compared = 0
    for level, metrics in expected.items():
        for metric, names in metrics.items():
            for name, figures in names.items():
                for points in ("R11", "R40"):
                    for rank, difficulty in enumerate(("easy", "moderate", "hard")):
                        key = f"{level}/{metric}/{name.capitalize()}/{points}/{difficulty}"
                        wanted = None if figures is None else pytest.approx(figures[points][rank], abs=1e-3)
                        assert values[key] == wanted, key
                        compared += 1
    assert compared == 2 * 4 * 3 * 2 * 3


@pytest.mark.parametrize(
    ("seed", "frames", "crowded"), [(0, 60, False), (1, 60, True), *((seed, 5, seed % 2 == 0) for seed in range(2, 14))]
)
def test_the_slow_twin_gives_the_same_figures(seed, frames, crowded):
    truths, found = street(np.random.default_rng(seed), frames, crowded=crowded, digits=1 + seed % 3)
    values = evaluate_objects(truths, found, CLASSES).values
    for key, wanted in kitti_scores(truths, found, CLASSES).items():
        assert values[key] == (None if wanted is None else pytest.approx(wanted, abs=1e-9)), key


@pytest.mark.parametrize("frames", [41, 50, 400])
def test_labels_as_detections_score_100(frames):
    rows = [("Car", {}), ("Pedestrian", ELSEWHERE)]
    values = scored(rows, rows, [0.9, 0.8], frames)
    for key in (
        "strict/3d/Car/R40/easy",
        "strict/bev/Car/R11/hard",
        "loose/bbox/Pedestrian/R40/moderate",
        "strict/aos/mean/R40/moderate",
    ):
        assert values[key] == pytest.approx(100), key


def test_few_objects_never_reach_100():
    values = scored([("Car", {})], [("Car", {})], [0.9], frames=1)
    assert values["strict/3d/Car/R11/easy"] == pytest.approx(100 / 11)  # one threshold fills the step at recall 0,
    assert values["strict/3d/Car/R40/easy"] == 0  # which R40 leaves out
    values = scored([("Car", {})], [("Car", {})], [0.9], frames=40)
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(100 * 39 / 40)


def test_a_false_positive_above_every_hit_costs_precision():
    values = scored([("Car", {})], [("Car", {}), ("Car", ELSEWHERE)], [0.5, 0.9])
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(50)
    values = scored([("Car", {})], [("Car", {}), ("Car", ELSEWHERE)], [0.9, 0.5])
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(100)


def test_half_of_the_objects_found_reaches_half_of_the_recall():
    values = scored([("Car", {}), ("Car", ELSEWHERE)], [("Car", {})], [0.9], frames=200)
    assert values["strict/3d/Car/R11/easy"] == pytest.approx(100 * 6 / 11)  # recall 0, 0.1, ..., 0.5
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("name", "neighbour", "other"), [("Car", "Van", "Truck"), ("Pedestrian", "Person_sitting", "Van")]
)
def test_neighbour_classes_are_neither_hit_nor_missed(name, neighbour, other):
    found = [(name, {}), (name, {**ELSEWHERE, "size": SIZES[neighbour]})]
    absent = [(name, {})]
    values = scored([(name, {}), (neighbour, ELSEWHERE)], found, [0.5, 0.9])
    assert values[f"strict/3d/{name}/R40/easy"] == pytest.approx(100)
    assert scored([(name, {}), (neighbour, ELSEWHERE)], absent, [0.5])[f"strict/3d/{name}/R40/easy"] == pytest.approx(
        100
    )
    values = scored([(name, {}), (other, {**ELSEWHERE, "size": SIZES[neighbour]})], found, [0.5, 0.9])
    assert values[f"strict/3d/{name}/R40/easy"] == pytest.approx(50)


def test_dontcare_forgives_in_the_image_only():
    found = [("Car", {}), ("Car", ELSEWHERE)]
    values = scored([("Car", {}), ("DontCare", {**AREA, "box": (500, 0, 600, 100)})], found, [0.5, 0.9])
    assert values["strict/bbox/Car/R40/easy"] == pytest.approx(100)
    assert values["strict/aos/Car/R40/easy"] == pytest.approx(100)
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(50)
    assert values["strict/bev/Car/R40/easy"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("name", "right", "forgiven"),
    [("Car", 570, False), ("Car", 571, True), ("Cyclist", 550, False), ("Cyclist", 551, True)],
)
def test_dontcare_forgives_what_it_covers_beyond_the_limit_of_the_class(name, right, forgiven):
    # far larger than the detection: only the detection's area counts
    area = ("DontCare", {**AREA, "box": (400, -300, right, 800)})
    values = scored([(name, {}), area], [(name, {}), (name, ELSEWHERE)], [0.5, 0.9])
    assert values[f"strict/bbox/{name}/R40/easy"] == pytest.approx(100 if forgiven else 50)


def test_dontcare_does_not_forgive_a_detection_that_an_object_took():
    area = ("DontCare", {**AREA, "box": (0, 0, 100, 100)})
    assert scored([("Car", {}), area], [("Car", {})], [0.5])["strict/bbox/Car/R40/easy"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("columns", "counts_at"),
    [
        ({"occlusion": 1}, ("moderate", "hard")),
        ({"occlusion": 2}, ("hard",)),
        ({"occlusion": 3}, ()),
        ({"truncation": 0.15}, ("easy", "moderate", "hard")),
        ({"truncation": 0.16}, ("moderate", "hard")),
        ({"truncation": 0.31}, ("hard",)),
        ({"truncation": 0.51}, ()),
        ({"box": (0, 0, 100, 40)}, ("moderate", "hard")),  # a labelled height must exceed the limit
        ({"box": (0, 0, 100, 40.01)}, ("easy", "moderate", "hard")),
        ({"box": (0, 0, 100, 25)}, ()),
        ({"box": (0, 0, 100, 25.01)}, ("moderate", "hard")),
    ],
)
def test_hard_objects_count_from_their_difficulty_on(columns, counts_at):
    scores = evaluate_objects([objects(("Car", columns))], [objects(("Car", columns), scores=[0.9])], CLASSES)
    for difficulty in ("easy", "moderate", "hard"):
        assert scores.counts[f"Car/{difficulty}"] == (difficulty in counts_at)
    rows = [("Car", {**ELSEWHERE, "occlusion": 0}), ("Car", columns)]
    values = scored(rows, rows, [0.5, 0.9])  # hit or neutral, the other detection is no false positive
    for difficulty in ("easy", "moderate", "hard"):
        assert values[f"strict/3d/Car/R40/{difficulty}"] == pytest.approx(100)
    values = scored(rows, rows[:1], [0.5])
    for difficulty in ("easy", "moderate", "hard"):
        assert values[f"strict/3d/Car/R40/{difficulty}"] == pytest.approx(50 if difficulty in counts_at else 100, abs=3)


def test_a_low_detection_is_no_false_positive():
    low = {**ELSEWHERE, "box": (500, 0, 600, 39.99)}
    values = scored([("Car", {})], [("Car", {}), ("Car", low)], [0.5, 0.9])
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(100)
    assert values["strict/3d/Car/R40/moderate"] == pytest.approx(50)
    values = scored([("Car", {})], [("Car", {}), ("Car", {**low, "box": (500, 0, 600, 40)})], [0.5, 0.9])
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(50)


def test_a_low_detection_of_another_class_absorbs_an_object():
    """Found half of the time otherwise: where it is absorbed the object is neither hit nor missed, and pass one loses
    its threshold.
    """
    low = ("Cyclist", {"box": (0, 0, 100, 30), "size": SIZES["Car"]})
    high = ("Cyclist", {"box": (0, 0, 100, 50), "size": SIZES["Car"]})
    truths = [objects(("Car", {}))] * 60
    plain = [objects(("Car", {}), scores=[0.5])] * 30
    for extra, wanted in ((low, 50), (high, 100)):
        found = plain + [objects(extra, ("Car", {}), scores=[0.9, 0.5])] * 30
        value = evaluate_objects(truths, found, CLASSES).values["strict/3d/Car/R40/easy"]
        assert value == pytest.approx(wanted, abs=1.5)


def test_a_regular_detection_is_preferred_to_a_low_one_of_larger_overlap():
    low = ("Car", {"box": (0, 0, 100, 39)})
    regular = ("Car", {"location": (0.3, 1.5, 20)})
    values = scored([("Car", {})], [low, regular], [0.3, 0.9])
    assert values["strict/3d/Car/R40/easy"] == pytest.approx(100)
    # Pass one takes the higher score instead: were the low one ahead, no threshold would be left.
    assert scored([("Car", {})], [low, regular], [0.95, 0.9])["strict/3d/Car/R40/easy"] == 0


def test_overlap_must_exceed_the_limit():
    def value(metric, truth, found, name):
        return scored([(name, truth)], [(name, found)], [0.9])[f"strict/{metric}/{name}/R40/easy"]

    assert value("bbox", {"box": (0, 0, 100, 100)}, {"box": (0, 0, 70, 100)}, "Car") == 0
    assert value("bbox", {"box": (0, 0, 100, 100)}, {"box": (0, 0, 70.01, 100)}, "Car") == pytest.approx(100)
    assert value("bbox", {"box": (0, 0, 100, 100)}, {"box": (0, 0, 50, 100)}, "Cyclist") == 0
    half = {"size": (2.0, 1.0, 2.0)}
    assert value("bev", {"size": (2.0, 1.0, 4.0)}, half, "Pedestrian") == 0
    assert value("bev", {"size": (2.0, 1.0, 4.0)}, {"size": (2.0, 1.0, 2.01)}, "Pedestrian") == pytest.approx(100)
    assert value("3d", {"size": (2.0, 1.0, 4.0)}, half, "Pedestrian") == 0
    assert value("3d", {"size": (2.0, 1.0, 2.0)}, {"size": (1.0, 1.0, 2.0)}, "Pedestrian") == 0


def test_loose_limits_accept_what_strict_ones_refuse():
    # overlap (3.9 - 0.8) / (3.9 + 0.8) = 0.66
    values = scored([("Car", {})], [("Car", {"location": (0.8, 1.5, 20)})], [0.9])
    assert values["strict/3d/Car/R40/easy"] == 0
    assert values["loose/3d/Car/R40/easy"] == values["loose/bev/Car/R40/easy"] == pytest.approx(100)
    assert values["loose/bbox/Car/R40/easy"] == values["strict/bbox/Car/R40/easy"]


def test_rotation_turns_the_box_on_the_ground():
    turned = {"rotation_y": np.pi / 2, "size": (1.5, 3.9, 1.6)}  # width and length exchanged
    assert scored([("Car", {})], [("Car", turned)], [0.9])["strict/bev/Car/R40/easy"] == pytest.approx(100)
    leaning = ("Car", {"rotation_y": 0.4, "location": (2, 1.5, 20)})
    mirrored = ("Car", {"rotation_y": -0.4, "location": (2, 1.5, 20)})
    assert scored([leaning], [leaning], [0.9])["strict/3d/Car/R40/easy"] == pytest.approx(100)
    assert scored([leaning], [mirrored], [0.9])["strict/3d/Car/R40/easy"] == 0


def test_the_better_placed_of_two_detections_is_the_hit():
    """The far one has the higher score.

    Above 0.5 it is the hit; below, the near one is, and the far one becomes a false positive.
    """
    near, far = ("Car", {}), ("Car", {"location": (0.5, 1.5, 20)})
    truths = [objects(("Car", {}))] * 100
    found = [objects(far, near, scores=[0.9, 0.5])] * 50 + [objects(near, scores=[0.3])] * 50
    curve = evaluate_objects(truths, found, CLASSES).curves["strict/3d/Car/moderate"]
    assert curve.x == pytest.approx([2.5 * step for step in range(41)])
    assert curve.y[:20] == pytest.approx([100.0] * 20)
    assert curve.y[40] == pytest.approx(100 * 100 / 150)


@pytest.mark.parametrize(("turn", "share"), [(0, 1), (np.pi / 2, 0.5), (np.pi, 0), (2 * np.pi, 1)])
def test_orientation_counts_by_the_cosine_of_its_error(turn, share):
    values = scored([("Car", {"alpha": 0.3})], [("Car", {"alpha": 0.3 + turn})], [0.9])
    assert values["strict/aos/Car/R40/easy"] == pytest.approx(100 * share, abs=1e-9)
    assert values["strict/bbox/Car/R40/easy"] == pytest.approx(100)


def test_one_unknown_alpha_switches_orientation_off_for_all_classes():
    rows = [("Car", {}), ("Pedestrian", ELSEWHERE)]
    truths = [objects(*rows)] * 50
    found = [objects(*rows, scores=[0.9, 0.9])] * 49 + [
        objects(("Tram", {"alpha": -10, "size": (3, 3, 9)}), scores=[0.1])
    ]
    values = evaluate_objects(truths, found, CLASSES).values
    assert all(value is None for key, value in values.items() if "/aos/" in key)
    assert values["strict/bbox/Car/R40/easy"] is not None


def test_a_class_never_detected_is_not_evaluated_and_counts_0_in_the_mean():
    values = scored([("Car", {}), ("Cyclist", ELSEWHERE)], [("Car", {})], [0.9])
    assert values["strict/3d/Car/R40/moderate"] == pytest.approx(100)
    assert values["strict/3d/Cyclist/R40/moderate"] is None
    assert values["strict/3d/mean/R40/moderate"] == pytest.approx(50)


def test_a_class_without_labels_scores_0_and_is_left_out_of_the_mean():
    values = scored([("Car", {})], [("Car", {}), ("Cyclist", ELSEWHERE)], [0.9, 0.9])
    assert values["strict/3d/Cyclist/R40/moderate"] == 0
    assert values["strict/3d/mean/R40/moderate"] == pytest.approx(100)


SOMEWHERE, NOWHERE, A_CAR, NO_SIZE = (0, 1.5, 20), (-1000, -1000, -1000), SIZES["Car"], (-1, -1, -1)


@pytest.mark.parametrize(
    ("size", "location", "evaluated"),
    [
        (A_CAR, SOMEWHERE, ("bev", "3d")),
        (NO_SIZE, NOWHERE, ()),
        (A_CAR, NOWHERE, ()),
        (NO_SIZE, SOMEWHERE, ()),
        (A_CAR, (-1000, 1.5, 20), ()),
        (A_CAR, (0, 1.5, -1000), ()),
        (A_CAR, (0, -1000, 20), ("bev",)),
        ((1.5, -1, 3.9), SOMEWHERE, ()),
        ((1.5, 1.6, -1), SOMEWHERE, ()),
        ((-1, 1.6, 3.9), SOMEWHERE, ("bev",)),
    ],
)
def test_results_are_evaluated_where_they_have_boxes(size, location, evaluated):
    values = scored([("Car", {})], [("Car", {"size": size, "location": location})], [0.9])
    assert values["strict/bbox/Car/R40/easy"] == pytest.approx(100)
    for metric in ("bev", "3d"):
        wanted = pytest.approx(100) if metric in evaluated else None
        assert values[f"strict/{metric}/Car/R40/easy"] == wanted
        assert values[f"strict/{metric}/mean/R40/easy"] == wanted


def test_detections_without_an_image_box_are_not_evaluated_in_the_image():
    values = scored([("Car", {})], [("Car", {"box": (-1, -1, -1, -1)})], [0.9])
    assert values["strict/bbox/Car/R40/easy"] is None


def test_nothing_detected_is_0_in_the_mean_and_none_for_every_class():
    values = scored([("Car", {})], [], [])
    assert values["strict/3d/mean/R40/moderate"] == 0
    assert values["strict/3d/Car/R40/moderate"] is None


@pytest.mark.parametrize("frames", [0, 3])
def test_nothing_labelled_and_nothing_detected_has_no_score(frames):
    scores = evaluate_objects([objects()] * frames, [objects(scores=[])] * frames, CLASSES)
    assert set(scores.values.values()) == {None}
    assert set(scores.counts.values()) == {0}
    assert scores.curves == {}


def test_names_compare_without_case():
    assert scored([("car", {"size": SIZES["Car"]})], [("CAR", {"size": SIZES["Car"]})], [0.9])[
        "strict/3d/Car/R40/easy"
    ] == pytest.approx(100)


@pytest.fixture(scope="module")
def a_street():
    return street(np.random.default_rng(3), 40, digits=6)


def test_the_order_of_frames_does_not_matter(a_street):
    truths, found = a_street
    order = np.random.default_rng(0).permutation(len(truths))
    shuffled = evaluate_objects([truths[i] for i in order], [found[i] for i in order], CLASSES)
    assert shuffled.values == pytest.approx(evaluate_objects(truths, found, CLASSES).values, abs=1e-9)


def test_only_the_order_of_scores_matters(a_street):
    truths, found = a_street
    stretched = [objects_with_scores(frame, np.exp(7 * frame.scores) - 5) for frame in found]
    assert evaluate_objects(truths, stretched, CLASSES).values == pytest.approx(
        evaluate_objects(truths, found, CLASSES).values, abs=1e-9
    )


def test_frames_do_not_see_each_other_across_blocks(a_street, monkeypatch):
    truths, found = a_street
    whole = evaluate_objects(truths, found, CLASSES).values
    monkeypatch.setattr(kitti, "_FRAMES_AT_ONCE", 3)
    assert evaluate_objects(truths, found, CLASSES).values == pytest.approx(whole, abs=1e-9)


def test_a_class_is_scored_alike_whatever_other_classes_are_asked_for(a_street):
    truths, found = a_street
    together, alone = (
        evaluate_objects(truths, found, CLASSES).values,
        evaluate_objects(truths, found, ["Cyclist"]).values,
    )
    for key, value in alone.items():
        if "/Cyclist/" in key:
            assert together[key] == pytest.approx(value), key


def objects_with_scores(frame, scores):
    return type(frame)(**{**vars(frame), "scores": scores})


def test_bad_input_is_named():
    truth, found = objects(("Car", {})), objects(("Car", {}), scores=[0.9])
    with pytest.raises(InputError, match="unknown class of the KITTI metric 'Cart'; did you mean 'Car'"):
        evaluate_objects([truth], [found], ["Cart"])
    with pytest.raises(InputError, match="no class to score"):
        evaluate_objects([truth], [found], [])
    with pytest.raises(InputError, match="2 labelled frames, 1 frames of detections"):
        evaluate_objects([truth, truth], [found], CLASSES)
    with pytest.raises(InputError, match="frame 000000: detections without scores"):
        evaluate_objects([truth], [truth], CLASSES)
    with pytest.raises(InputError, match="frame b: the score of a detection is not finite"):
        match_frames([truth, truth], [found, objects(("Car", {}), scores=[np.nan])], CLASSES, ["a", "b"])
    with pytest.raises(InputError, match="the location of a label is not finite"):
        evaluate_objects([objects(("Car", {"location": (np.inf, 0, 0)}))], [found], CLASSES)


def test_boxes_without_extent_and_huge_boxes_do_no_harm():
    rows = [
        ("Car", {"size": (0, 0, 0)}),
        ("Car", {"size": (1e9, 1e9, 1e9)}),
        ("Car", {"box": (50, 50, 50, 90)}),
        ("Car", {"box": (90, 90, 10, 10)}),
    ]
    values = scored([("Car", {}), *rows], [("Car", {}), *rows], [0.9, 0.8, 0.7, 0.6, 0.5])
    assert all(value is None or 0 <= value <= 100 for value in values.values())


@pytest.mark.parametrize("num_frames", [1, 3, 40])
def test_the_labels_as_detections_reach_the_ceiling_of_their_number(num_frames):
    truths, _ = street(np.random.default_rng(num_frames), num_frames)
    classes = ("Car", "Pedestrian", "Cyclist")
    labels = [replace(truth, scores=np.ones(len(truth)))[np.isin(truth.names, classes)] for truth in truths]
    scores = evaluate_objects(truths, labels, classes)
    for name in classes:
        for difficulty in DIFFICULTIES:
            count = scores.counts[f"{name}/{difficulty}"]
            for points in ("R11", "R40"):
                value = scores.values[f"strict/3d/{name}/{points}/{difficulty}"]
                assert count == 0 or value == pytest.approx(ceiling(count, points), abs=1e-9)
