import numpy as np
import pytest

from lidistill.datasets.kitti.object_files import KITTI_NAMES, format_objects, read_objects, write_objects
from lidistill.datasets.kitti.records import CameraObjects
from lidistill.types import InputError

CAR = "Car 0.25 1 1.94 69.26 200.28 435.08 374.00 1.46 1.62 4.04 -3.00 1.79 6.98 1.55"
DONTCARE = "DontCare -1 -1 -10 606.64 170.67 621.06 184.34 -1 -1 -1 -1000 -1000 -1000 -10"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "000007.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_columns_land_where_the_development_kit_puts_them(written):
    objects = read_objects(written(f"{CAR}\n{DONTCARE}\n"))
    assert objects.names.tolist() == ["Car", "DontCare"]
    assert objects.truncation.tolist() == [0.25, -1]
    assert objects.occlusion.tolist() == [1, -1]
    assert objects.alpha.tolist() == [1.94, -10]
    assert objects.boxes_2d[0].tolist() == [69.26, 200.28, 435.08, 374.0]
    assert objects.sizes[0].tolist() == [1.46, 1.62, 4.04]
    assert objects.locations[0].tolist() == [-3.0, 1.79, 6.98]
    assert objects.rotation_y.tolist() == [1.55, -10]
    assert objects.scores is None


def test_a_sixteenth_column_is_the_score(written):
    assert read_objects(written(f"{CAR} 0.75\n")).scores.tolist() == [0.75]


@pytest.mark.parametrize("text", ["", "\n", "  \r\n\n"])
def test_a_file_without_rows_holds_no_object(written, text):
    objects = read_objects(written(text), scores=True)
    assert len(objects) == 0
    assert objects.boxes_2d.shape == (0, 4) and objects.sizes.shape == (0, 3) and objects.locations.shape == (0, 3)
    assert objects.scores.shape == (0,)
    assert read_objects(written(text)).scores is None


def test_line_endings_and_byte_order_marks_of_other_systems_are_read(written):
    assert len(read_objects(written(b"\xef\xbb\xbf" + f"{CAR}\r\n\r\n{CAR}".encode()))) == 2


def test_what_is_written_reads_back(tmp_path, written):
    objects = read_objects(written(f"{CAR} 0.123456789\n{CAR} 1e-7\n"))
    write_objects(tmp_path / "out" / "a.txt", objects)
    again = read_objects(tmp_path / "out" / "a.txt", scores=True)
    np.testing.assert_array_equal(again.names, objects.names)
    np.testing.assert_array_equal(again.scores, objects.scores)
    for name in ("truncation", "occlusion", "alpha", "boxes_2d", "sizes", "locations", "rotation_y"):
        np.testing.assert_allclose(getattr(again, name), getattr(objects, name), atol=5e-5, err_msg=name)


def test_float32_scores_survive_writing(written):
    scores = np.random.default_rng(0).random(50).astype(np.float32)
    objects = read_objects(written(f"{CAR}\n" * 50))
    text = format_objects(CameraObjects(**{**vars(objects), "scores": scores}))
    np.testing.assert_array_equal(read_objects(written(text)).scores.astype(np.float32), scores)


def test_no_object_is_written_as_an_empty_file(written):
    assert format_objects(read_objects(written(""))) == ""


@pytest.mark.parametrize(
    ("line", "scores", "said"),
    [
        (CAR + " 0.5 0.5", None, "17 columns"),
        (CAR.rsplit(" ", 1)[0], None, "14 columns"),
        (CAR, True, "15 columns"),
        (CAR + " 0.5", False, "16 columns"),
        (CAR.replace("374.00", "bottom"), None, "bottom is 'bottom'"),
        (CAR.replace("6.98", "nan"), None, "z is 'nan'"),
        (CAR.replace("6.98", "-inf"), None, "z is '-inf'"),
        (CAR + " nan", None, "score is 'nan'"),
        (CAR.replace("1.62", "-1.62"), None, "width is -1.62 m"),
        (CAR.replace("1.46 1.62 4.04", "-1 -1 -1"), None, "height is -1 m"),
        (CAR.replace(" 1 1.94", " 0.5 1.94"), None, "occlusion is '0.5'"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(written, line, scores, said):
    path = written(f"\n{line}\n")
    with pytest.raises(InputError) as error:
        read_objects(path, scores=scores)
    assert str(error.value).startswith(f"{path}:2: ")
    assert said in str(error.value)


def test_rows_of_one_file_agree_on_the_score(written):
    with pytest.raises(InputError, match=":2: 15 columns"):
        read_objects(written(f"{CAR} 0.5\n{CAR}\n"))


def test_results_without_a_3d_box_are_read(written):
    objects = read_objects(written("Car -1 -1 0.1 10 10 60 60 -1 -1 -1 -1000 -1000 -1000 -10 0.9"), scores=True)
    assert objects.sizes.tolist() == [[-1, -1, -1]]


def test_an_unknown_class_names_the_nearest_known_one(written):
    path = written(f"{CAR}\n{CAR.replace('Car', 'Pedestrain')}\n")
    with pytest.raises(InputError, match="did you mean 'Pedestrian'") as error:
        read_objects(path, known_names=KITTI_NAMES)
    assert f"{path}:2" in str(error.value)
    assert read_objects(path).names.tolist() == ["Car", "Pedestrain"]


def test_known_names_match_without_case(written):
    assert read_objects(written(CAR.replace("Car", "car")), known_names=KITTI_NAMES).names.tolist() == ["Car"]


def test_a_missing_file_and_a_binary_file_are_errors_that_name_them(tmp_path, written):
    with pytest.raises(InputError, match="no such file"):
        read_objects(tmp_path / "absent.txt")
    with pytest.raises(InputError, match=r"000007\.txt: line 1 is not text in UTF-8"):
        read_objects(written(b"\x80\x81\xff"))


def test_a_name_with_a_space_cannot_be_written(written):
    objects = read_objects(written(CAR))
    with pytest.raises(InputError, match="without spaces"):
        format_objects(CameraObjects(**{**vars(objects), "names": np.array(["traffic cone"])}))


def test_real_labels_are_read_and_survive_rewriting(real_samples, tmp_path):
    files = sorted(real_samples("kitti", "training", "label_2").glob("*.txt"))
    assert files
    for file in files:
        objects = read_objects(file, scores=False, known_names=KITTI_NAMES)
        write_objects(tmp_path / file.name, objects)
        again = read_objects(tmp_path / file.name)
        np.testing.assert_array_equal(again.boxes_2d, objects.boxes_2d)
        np.testing.assert_array_equal(again.locations, objects.locations)
