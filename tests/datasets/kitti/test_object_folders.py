import numpy as np
import pytest

from lidistill.datasets.kitti.metric import evaluate_objects
from lidistill.datasets.kitti.object_files import write_objects
from lidistill.datasets.kitti.object_folders import (
    evaluate_folder,
    read_label_folder,
    read_result_folder,
    write_result_folder,
)
from lidistill.types import InputError
from tests.evaluation.kitti_scenes import objects, street

CLASSES = ("Car", "Pedestrian", "Cyclist")


@pytest.fixture(scope="module")
def a_street():
    truths, found = street(np.random.default_rng(2), 12)
    return {f"{i * 3:06d}": truth for i, truth in enumerate(truths)}, found


@pytest.mark.parametrize("inner", ["", "data"])
def test_a_folder_of_results_scores_as_its_objects_do(a_street, tmp_path, inner):
    truths, found = a_street
    write_result_folder(tmp_path / inner, list(truths), found)
    scores, matches = evaluate_folder(truths, tmp_path, CLASSES)
    # four decimals are kept
    assert scores.values == pytest.approx(evaluate_objects(list(truths.values()), found, CLASSES).values, abs=0.5)
    assert matches.frame_ids == tuple(truths)


def test_labels_are_read_by_frame(a_street, tmp_path):
    truths, _ = a_street
    for frame_id, truth in truths.items():
        write_objects(tmp_path / f"{frame_id}.txt", truth)
    assert list(read_label_folder(tmp_path)) == list(truths)
    chosen = read_label_folder(tmp_path, ["000006", "000000"])
    assert list(chosen) == ["000006", "000000"]
    assert len(chosen["000006"]) == len(truths["000006"])


def test_a_frame_without_a_result_file_is_named(a_street, tmp_path):
    truths, found = a_street
    write_result_folder(tmp_path, list(truths), found)
    (tmp_path / "000003.txt").unlink()
    with pytest.raises(InputError, match=r"000003\.txt: no such file; every frame needs one"):
        read_result_folder(tmp_path, list(truths))


def test_results_without_scores_are_refused(a_street, tmp_path):
    truths, _ = a_street
    first = next(frame_id for frame_id, truth in truths.items() if len(truth))
    write_objects(tmp_path / f"{first}.txt", truths[first])
    with pytest.raises(InputError, match=rf"{first}\.txt:1: 15 columns; a result row has 16"):
        read_result_folder(tmp_path, [first])
    with pytest.raises(InputError, match="needs detections with scores"):
        write_result_folder(tmp_path, [first], [truths[first]])


def test_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        read_result_folder(tmp_path / "absent", ["000000"])
    with pytest.raises(InputError, match="no label file"):
        read_label_folder(tmp_path)


def test_an_unknown_class_in_a_label_is_named(tmp_path):
    write_objects(tmp_path / "000000.txt", objects(("Cart", {"size": (1, 1, 1)})))
    with pytest.raises(InputError, match=r"000000\.txt:1: unknown class 'Cart'; did you mean 'Car'"):
        read_label_folder(tmp_path)
