"""Where KITTI's scores stand, and that every score stands somewhere once."""

import pytest

from lidistill.datasets.kitti.score_layout import kitti_layout
from lidistill.datasets.kitti.score_names import MAIN, score_keys

CLASSES = ("Car", "Pedestrian")


@pytest.fixture(scope="module")
def layout():
    return kitti_layout(CLASSES, dict.fromkeys(map(str, score_keys(CLASSES))), {"Car/easy": 1})


def test_the_headline_is_said_in_words(layout):
    assert layout.headline == "3D AP (R40), mean over classes, moderate, strict overlap"


def test_the_summary_is_the_headline_by_class(layout):
    assert layout.summary == {
        "Car": "strict/3d/Car/R40/moderate",
        "Pedestrian": "strict/3d/Pedestrian/R40/moderate",
        "Mean": MAIN,
    }


def test_gains_are_stated_by_class_and_difficulty(layout):
    assert layout.gains.rows == ("Car", "Pedestrian", "Mean")
    assert layout.gains.columns == ("easy", "moderate", "hard")
    assert ("Mean", "moderate", MAIN) in list(layout.gains.places)


def test_captions_name_the_overlaps(layout):
    assert layout.tables[0].caption == "AP R40, strict overlap (Car 0.7, Pedestrian 0.5), percent"
    loose = next(table for table in layout.folded if "loose" in table.title)
    assert loose.caption == "AP R40, loose overlap (Car 0.5, Pedestrian 0.25), percent"


def test_no_score_stands_twice_in_the_tables(layout):
    keys = [key for table in (*layout.tables, *layout.folded) for key in table.all_keys]
    assert len(keys) == len(set(keys)) == 5 * 3 * 6
    assert set(keys) <= set(map(str, score_keys(CLASSES)))


def test_without_objects_nothing_is_said_of_them():
    layout = kitti_layout(CLASSES, {}, {})
    assert layout.counts is None
    assert layout.printed.beside == {}
    assert layout.printed.note == ""
