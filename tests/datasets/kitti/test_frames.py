"""KITTI folders, good and bad."""

import os
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill.data.object_database import object_database
from lidistill.data.source import MissingSplit
from lidistill.datasets.kitti.calibration import image_size, read_calibration
from lidistill.datasets.kitti.frame_ids import every_id
from lidistill.datasets.kitti.frames import KittiData, KittiFrames
from lidistill.datasets.kitti.projection import to_camera
from lidistill.types import InputError
from tests.data.conftest import SPEC, points_around
from tests.datasets.kitti.conftest import CAMERA_FROM_LIDAR, CAR, IMAGE_FROM_CAMERA, WALKER, calibration_text, numbers

LABEL = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"


def frames(kitti, ids=("000001",), **settings) -> KittiFrames:
    return KittiFrames(kitti.training, ids, replace(SPEC, name="kitti"), **settings)


def test_a_frame_holds_the_written_points_and_boxes(kitti):
    frame = KittiData(str(kitti.root), camera_view_only=False).open("train")[0]
    assert frame.id == "000001"
    assert frame.points.dtype == torch.float32
    assert frame.points.shape == (240, 4)
    assert frame.boxes.labels.tolist() == [0, 1]
    torch.testing.assert_close(frame.boxes.geometry, torch.tensor([CAR, WALKER]), atol=2e-4, rtol=0)


def test_lists_choose_the_frames_of_a_split(kitti):
    data = KittiData(str(kitti.root))
    assert data.open("train").ids == ("000001", "000002")
    assert data.open("val").ids == ("000005",)
    assert data.open("all").ids == ("000001", "000002", "000005")
    kitti.list_frames("trainval.txt", ["000005", "000001"])
    assert data.open("trainval").ids == ("000005", "000001")


def test_every_frame_is_used_only_when_asked_for(kitti):
    (kitti.root / "ImageSets" / "train.txt").unlink()
    with pytest.raises(InputError, match=r"train\.txt: no list of frames for the split 'train'; .*train_split=all"):
        KittiData(str(kitti.root)).open("train")
    assert len(KittiData(str(kitti.root), train_split="all").open("train")) == 3


@pytest.mark.parametrize(
    ("split", "setting"), [("val", "set data.val_split=all"), ("trainval", "open the split 'all'")]
)
def test_a_missing_list_has_a_remedy_among_the_settings_and_one_among_the_options(kitti, split, setting):
    (kitti.root / "ImageSets" / "val.txt").unlink()
    with pytest.raises(MissingSplit) as caught:
        KittiData(str(kitti.root)).open(split)
    assert str(caught.value).endswith(f"or {setting} to use every frame of training/velodyne")
    assert caught.value.with_option == str(caught.value).replace(setting, "give --split all")


def test_comments_and_blank_lines_in_a_list_are_left_out(kitti):
    (kitti.root / "ImageSets" / "train.txt").write_text("# mine\n\n 000002 \n")
    assert KittiData(str(kitti.root)).open("train").ids == ("000002",)


@pytest.mark.parametrize(
    ("ids", "fault"), [(["a", "a"], "listed twice"), (["../a"], "no file name"), (["/etc/a"], "no file name")]
)
def test_ids_must_be_file_names_and_unique(kitti, ids, fault):
    with pytest.raises(InputError, match=fault):
        frames(kitti, ids)


def test_a_folder_that_the_simulator_wrote_says_so(kitti):
    data = KittiData(root=str(kitti.root))
    assert not data.open("train").spec.simulated
    record = kitti.root / "simulated.json"
    record.write_text('{"simulator_version": 7}')
    found = data.open("train").spec
    assert (found.simulated, found.version) == (True, "simulator 7")
    for damaged in ("{}", '{"simulator_version": "7"}', '{"simulator_version": null}', "[]", "not JSON"):
        record.write_text(damaged)
        assert data.spec.name == "kitti"  # a run on these frames can be loaded without them
        with pytest.raises(InputError, match=r"simulated.json: .*delete the folder and simulate it again"):
            data.open("train")


def test_kittis_single_scans_have_no_sweeps_to_join():
    with pytest.raises(InputError, match=r"data\.sweeps is 3, but KITTI's object frames are single scans"):
        KittiData(root="somewhere", sweeps=3)
    assert KittiData(root="somewhere").spec.point_features == ("intensity",)


def test_missing_root_and_empty_folder_say_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; give the folder"):
        KittiData(str(tmp_path / "nowhere")).open("train")
    with pytest.raises(InputError, match=r"has no \.bin file"):
        every_id(tmp_path)


@pytest.mark.parametrize("classes", [(), ("Car", "Car"), ("Lorry",)])
def test_classes_must_be_known_and_unique(classes):
    with pytest.raises(
        InputError, match=r"must be some of Car, Pedestrian, Cyclist|^data.classes is \('Car', 'Car'\); give each once"
    ):
        KittiData("/data", classes=classes)


def test_fewer_classes_give_fewer_boxes_and_the_same_labelled_rows(kitti):
    frame = KittiData(str(kitti.root), classes=("Pedestrian",)).open("train")[0]
    assert frame.boxes.labels.tolist() == [0]
    assert frame.truth.objects.names.tolist() == ["Car", "Pedestrian"]


def test_dont_care_and_neighbours_are_kept_for_the_evaluator_only(kitti):
    path = kitti.path("label_2", "000001")
    other = (
        LABEL.replace("Car", "Van") + "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    path.write_text(path.read_text() + other)
    frame = frames(kitti)[0]
    assert len(frame.boxes) == 2
    assert frame.truth.objects.names.tolist() == ["Car", "Pedestrian", "Van", "DontCare"]


def test_points_outside_the_image_are_left_out(kitti):
    points = np.array([[10, 0, 0, 1], [-10, 0, 0, 2], [10, 30, 0, 3], [10, 0, 9, 4], [0, 0, 0, 5]], dtype=np.float32)
    kitti.add("000009", np.zeros((0, 7)), [], points)
    assert frames(kitti, ["000009"])[0].points[:, 3].tolist() == [1.0]
    assert frames(kitti, ["000009"], camera_view_only=False)[0].points[:, 3].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_test_frames_have_no_boxes_and_need_no_label(kitti):
    (kitti.root / "testing").symlink_to(kitti.training)
    kitti.path("label_2", "000001").unlink()
    source = KittiData(str(kitti.root)).open("test")
    assert source.ids == ("000001", "000002", "000005")
    assert source[0].boxes is None
    assert source[0].truth.objects is None


def test_frame_without_boxes_is_not_a_frame_without_labels(kitti):
    frame = KittiData(str(kitti.root)).open("val")[0]
    assert frame.boxes is not None
    assert frame.boxes.geometry.shape == (0, 7)
    assert frame.boxes.labels.dtype == torch.int64


def test_empty_points_file_gives_an_empty_frame(kitti):
    kitti.path("velodyne", "000001").write_bytes(b"")
    assert frames(kitti)[0].points.shape == (0, 4)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("calib", r"calib/000001\.txt: the calibration file is missing"),
        ("velodyne", r"velodyne/000001\.bin: the points file is missing"),
        ("label_2", r"label_2/000001\.txt: no such file"),
    ],
)
def test_missing_file_is_named_with_the_remedy(kitti, part, message):
    kitti.path(part, "000001").unlink()
    with pytest.raises(InputError, match=message):
        frames(kitti)[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Car 0.00 0 -1.58 587.01\n", r"000001\.txt:2: 5 columns"),
        (LABEL.replace("Car", "Lorry"), r"000001\.txt:2: unknown class 'Lorry'"),
        (LABEL.replace("1.67", "-1.67"), r"000001\.txt:2: width is -1.67 m"),
        (LABEL.replace("46.70", "far"), r"000001\.txt:2: z is 'far'"),
        (LABEL.replace("46.70", "nan"), r"000001\.txt:2: z is 'nan'"),
        (LABEL.replace("3.64", "0.00"), r"000001\.txt: Car has a size of 0 m"),
    ],
)
def test_malformed_label_is_named_by_file_and_line(kitti, row, message):
    kitti.path("label_2", "000001").write_text(LABEL + row)
    with pytest.raises(InputError, match=message):
        frames(kitti)[0]


def test_object_without_a_3d_box_gives_no_box(kitti):
    row = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 -1 -1 -1 -1000 -1000 -1000 -10\n"
    kitti.path("label_2", "000001").write_text(LABEL + row)
    frame = frames(kitti)[0]
    assert len(frame.boxes) == 1
    assert len(frame.truth.objects) == 2


def test_bad_frames_are_left_out_on_request_and_reported_once(kitti):
    kitti.path("velodyne", "000001").write_bytes(bytes(15))
    with pytest.raises(InputError, match="15 bytes"):
        KittiData(str(kitti.root)).open("train")[0]
    with pytest.warns(UserWarning, match=r"1 of 2 frames are left out:\n  000001: .*15 bytes") as seen:
        source = KittiData(str(kitti.root), skip_bad_frames=True).open("train")
    assert len(seen) == 1
    assert source.ids == ("000002",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert source[0].id == "000002"


def test_nonfinite_points_can_be_left_out(kitti):
    points = kitti.add("000009", np.zeros((0, 7)), [])
    points[3, 2] = np.nan
    points.tofile(kitti.path("velodyne", "000009"))
    with pytest.raises(InputError, match="row 3"):
        frames(kitti, ["000009"])[0]
    assert torch.isfinite(frames(kitti, ["000009"], drop_nonfinite=True)[0].points).all()


@pytest.mark.parametrize(
    "names",
    [("P2:", "R0_rect:", "Tr_velo_to_cam:"), ("P2:", "R_rect:", "Tr_velo_cam:"), ("P2:", "R_rect", "Tr_velo_cam")],
)
def test_calibration_of_every_age_is_read(tmp_path, names):
    path = tmp_path / "calib.txt"
    path.write_text("P0: 1 2\n\n" + calibration_text(names))
    calibration = read_calibration(path, (10, 20))
    np.testing.assert_allclose(calibration.image_from_camera, IMAGE_FROM_CAMERA)
    np.testing.assert_allclose(calibration.camera_from_lidar, CAMERA_FROM_LIDAR)
    assert calibration.image_size == (10, 20)


def test_rectification_follows_the_step_into_the_camera(tmp_path):
    angle = 0.4
    rectified = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    step = np.column_stack([CAMERA_FROM_LIDAR[:3, :3], [0.1, -0.2, 0.3]])
    path = tmp_path / "calib.txt"
    path.write_text(
        f"P2: {numbers(IMAGE_FROM_CAMERA)}\nR0_rect: {numbers(rectified)}\nTr_velo_to_cam: {numbers(step)}\n"
    )
    point = np.array([7.0, -2.0, 1.0])
    expected = rectified @ (step[:, :3] @ point + step[:, 3])
    np.testing.assert_allclose(to_camera(read_calibration(path, (1, 1)), point), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("P2:", "P9:", "no row P2"),
        ("R0_rect:", "R9:", "no row R0_rect or R_rect"),
        ("Tr_velo_to_cam:", "Tr_velo_to_cam: 1", "Tr_velo_to_cam must be 12 finite numbers"),
        ("P2: 7", "P2: x7", "P2 must be 12 finite numbers"),
        ("P2: 7.000000000000e+02", "P2: nan", "P2 must be 12 finite numbers"),
        ("R0_rect: 1", "R0_rect: 0", "cannot be inverted"),
    ],
)
def test_bad_calibration_is_named(tmp_path, old, new, message):
    path = tmp_path / "calib.txt"
    path.write_text(calibration_text().replace(old, new))
    with pytest.raises(InputError, match=rf"calib\.txt: .*{message}"):
        read_calibration(path, (1, 1))


def test_image_size_comes_from_the_header_or_is_assumed(tmp_path):
    path = tmp_path / "image.png"
    assert image_size(path) == (1242, 375)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1224, 370))
    assert image_size(path) == (1224, 370)
    path.write_bytes(b"JFIF")
    with pytest.raises(InputError, match="not a PNG image"):
        image_size(path)


def test_fingerprint_follows_the_content_and_the_way_of_reading(kitti):
    before = frames(kitti).fingerprint()
    assert frames(kitti).fingerprint() == before
    assert frames(kitti, camera_view_only=False).fingerprint() != before
    assert frames(kitti, ["000002"]).fingerprint() != before
    kitti.path("label_2", "000001").write_text(LABEL)
    relabelled = frames(kitti).fingerprint()
    assert relabelled != before
    kitti.path("label_2", "000001").write_text(LABEL.replace("46.70", "46.71"))  # of the same size
    os.utime(kitti.path("label_2", "000001"), ns=(1, 1))
    assert frames(kitti).fingerprint() != relabelled
    before = frames(kitti).fingerprint()
    image = kitti.path("image_2", "000001").with_suffix(".png")  # its size decides which points are in view
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(b"another image")
    assert frames(kitti).fingerprint() != before


def test_the_recipe_in_the_documentation_makes_a_readable_folder(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    (calibration,) = (block for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) if block.startswith("P2:"))
    (recipe,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for part in ("velodyne", "calib", "label_2"):
        (tmp_path / "mine" / "training" / part).mkdir(parents=True)
    (tmp_path / "mine/training/calib/000000.txt").write_text(calibration)
    points_around(np.zeros((0, 7)), np.random.default_rng(0)).tofile(tmp_path / "mine/training/velodyne/000000.bin")
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    frame = KittiData("mine", train_split="all", camera_view_only=False).open("train")[0]
    torch.testing.assert_close(frame.boxes.geometry, torch.tensor([CAR]), atol=2e-4, rtol=0)


def test_nothing_is_written_beside_the_data(kitti, tmp_path):
    before = sorted(kitti.root.rglob("*"))
    database = object_database(KittiData(str(kitti.root)).open("train"), tmp_path / "cache")
    assert database.labels.tolist() == [0, 1, 0]
    assert sorted(kitti.root.rglob("*")) == before
