import json
from dataclasses import replace

import numpy as np
import pytest

from lidistill.configuration import named, settings_from
from lidistill.datasets import DATASETS, parse_source
from lidistill.datasets.kitti import projection as camera
from lidistill.datasets.kitti.calibration import read_calibration
from lidistill.datasets.kitti.frame_ids import every_id
from lidistill.datasets.kitti.frames import KittiData, KittiFrames
from lidistill.datasets.kitti.object_files import read_objects
from lidistill.datasets.simulated import folder as simulated_folder
from lidistill.datasets.simulated.folder import MANIFEST, write_folder
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.datasets.simulated.labels import MIN_POINTS, calibration_text, camera_calibration, label_rows
from lidistill.simulate import SimulatedObjects, SimulatorSettings, simulate_frame
from lidistill.types import InputError

COARSE = SimulatorSettings(sensor="kitti-lite", azimuth_step_deg=1.0)


def table(*boxes, points=100, alone=100, visible=100, occlusion=0, name="Car"):
    num = len(boxes)
    full = lambda value: np.full(num, value)  # noqa: E731
    return SimulatedObjects(
        full(name),
        np.array(boxes, dtype=float).reshape(-1, 7),
        np.zeros((num, 2)),
        full(points),
        full(alone),
        full(visible),
        full(occlusion),
    )


def car(x, y, yaw=0.0):
    return (x, y, -0.95, 4.0, 1.7, 1.5, yaw)


def rows(*boxes, **columns):
    return label_rows(table(*boxes, **columns), camera_calibration())


# Labels.


def test_a_car_ahead_is_labelled_as_it_is():
    labels = rows(car(20.0, 3.0, 0.4), occlusion=1)
    assert labels.names.tolist() == ["Car"] and labels.occlusion.tolist() == [1]
    assert labels.truncation[0] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(camera.lidar_boxes(camera_calibration(), labels), [car(20.0, 3.0, 0.4)], atol=1e-9)
    left, top, right, bottom = labels.boxes_2d[0]
    assert 0 < left < right < 609 and 0 < top < bottom < 375  # left of the middle


def test_the_camera_stands_above_the_ground_where_kittis_does():
    ground_below = np.array([[10.0, 0.0, -1.73]])
    assert camera.to_camera(camera_calibration(), ground_below)[0].tolist() == pytest.approx([0.0, 1.65, 9.73])


@pytest.mark.parametrize("box", [car(-20.0, 0.0), car(10.0, 30.0), car(5.0, -40.0)])
def test_what_is_behind_or_beside_the_image_has_no_label(box):
    assert len(rows(box)) == 0


def test_truncation_is_the_share_of_the_2d_box_outside_the_image():
    """The left border of the image is at x/z = -609.56/721.54; a box seen from the side whose middle is there is about
    half outside.
    """
    depth = 19.73
    labels = rows((20.0, depth * 609.56 / 721.54, -0.95, 0.2, 4.0, 1.5, 0.0))
    assert labels.truncation[0] == pytest.approx(0.5, abs=0.03)
    assert labels.boxes_2d[0, 0] == 0


def test_a_sliver_at_the_border_has_no_label():
    depth, width = 19.73, 4.0
    border = depth * 609.56 / 721.54
    assert len(rows((20.0, border + 0.49 * width, -0.95, 0.2, width, 1.5, 0.0))) == 0
    assert len(rows((20.0, border + 0.40 * width, -0.95, 0.2, width, 1.5, 0.0))) == 1


def test_what_is_hidden_altogether_has_no_label():
    assert len(rows(car(20.0, 0.0), points=0, visible=0)) == 0


@pytest.mark.parametrize(
    "columns", [{"points": MIN_POINTS - 1}, {"points": 0, "alone": 0, "visible": 0, "occlusion": 3}]
)
def test_what_is_seen_but_too_sparse_is_a_region_nobody_cares_about(columns):
    labels = rows(car(40.0, 0.0), **columns)
    assert labels.names.tolist() == ["DontCare"]
    assert labels.sizes.tolist() == [[-1.0] * 3] and labels.locations.tolist() == [[-1000.0] * 3]
    assert (labels.truncation[0], labels.occlusion[0], labels.alpha[0], labels.rotation_y[0]) == (-1, -1, -10, -10)
    np.testing.assert_allclose(labels.boxes_2d, camera.image_boxes(camera_calibration(), np.array([car(40.0, 0.0)]))[0])


def test_what_is_too_far_is_a_region_nobody_cares_about():
    assert rows(car(74.0, 0.0)).names.tolist() == ["Car"]
    assert rows(car(77.0, 0.0)).names.tolist() == ["DontCare"]


def test_labels_come_nearest_first_and_regions_last():
    objects = table(car(30.0, 0.0), car(78.0, 5.0), car(10.0, 0.0), car(20.0, 0.0))
    labels = label_rows(objects, camera_calibration())
    assert labels.names.tolist() == ["Car"] * 3 + ["DontCare"]
    assert (np.diff(labels.locations[:3, 2]) > 0).all()


def test_no_object_is_no_row():
    assert len(rows()) == 0


def test_the_calibration_file_is_read_back_as_it_was(tmp_path):
    (tmp_path / "calib.txt").write_text(calibration_text(camera_calibration()))
    found = read_calibration(tmp_path / "calib.txt", (1242, 375))
    np.testing.assert_allclose(found.image_from_camera, camera_calibration().image_from_camera)
    np.testing.assert_allclose(found.camera_from_lidar, camera_calibration().camera_from_lidar)


# Folders.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("streets") / "kitti"
    write_folder(out, 5, COARSE, seed=3, workers=1, val_share=0.4, progress=False)
    return out


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_has_kittis_layout(folder):
    parts = {"velodyne": "bin", "label_2": "txt", "calib": "txt"}
    expected = {f"training/{part}/{index:06d}.{ending}" for part, ending in parts.items() for index in range(5)}
    expected |= {f"ImageSets/{name}.txt" for name in ("train", "val", "trainval")} | {MANIFEST}
    assert contents(folder).keys() == expected
    assert (folder / "ImageSets/train.txt").read_text() == "000000\n000001\n000002\n"
    assert (folder / "ImageSets/val.txt").read_text() == "000003\n000004\n"


def test_a_folder_is_read_back_by_the_kitti_reader(folder):
    data = KittiData(root=str(folder), camera_view_only=False)
    frames = data.open("all")
    assert len(frames) == 5 and len(data.open("train")) == 3
    for index, frame in enumerate(frames):
        scan = simulate_frame(COARSE, 3, index)
        np.testing.assert_array_equal(frame.points.numpy(), scan.points)
        labels = label_rows(scan.objects, camera_calibration())
        chosen = np.isin(labels.names, data.classes)
        np.testing.assert_allclose(
            frame.boxes.geometry.numpy(), camera.lidar_boxes(camera_calibration(), labels[chosen]), atol=1e-3
        )
        assert frame.truth.objects.names.tolist() == labels.names.tolist()


def test_labels_hold_the_points_they_claim(folder):
    """Every label of the written files has at least the points below which it would be no label."""
    for frame in KittiData(root=str(folder)).open("all"):
        points = frame.points.numpy()[:, :3]
        for box in frame.boxes.geometry.numpy():
            offset = points - box[:3]
            cos, sin = np.cos(box[6]), np.sin(box[6])
            local = np.stack(
                [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]],
                axis=-1,
            )
            inside = (np.abs(local) < box[3:6] / 2 + 0.1).all(axis=1).sum()
            # Points beyond the image's border are cropped with the rest of the scan.
            truncated = np.abs(camera.image_boxes(camera_calibration(), box[None])[1][0, [0, 2]] - 621).max() > 600
            assert inside >= MIN_POINTS or truncated


def test_the_number_of_processes_changes_no_byte(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(simulated_folder, "FRAMES_WORTH_A_PROCESS", 1)
    write_folder(tmp_path / "parallel", 5, COARSE, seed=3, workers=2, val_share=0.4, progress=False)
    assert contents(tmp_path / "parallel") == contents(folder)


def test_frames_do_not_depend_on_how_many_there_are(folder, tmp_path):
    write_folder(tmp_path / "few", 2, COARSE, seed=3, workers=1, progress=False)
    few, many = contents(tmp_path / "few"), contents(folder)
    assert all(few[name] == many[name] for name in few if name.startswith("training/"))


def test_an_interrupted_folder_is_completed_and_finished_frames_are_kept(folder, tmp_path, monkeypatch):
    out = tmp_path / "again"
    write_folder(out, 5, COARSE, seed=3, workers=1, val_share=0.4, progress=False)
    (out / "training/velodyne/000003.bin").unlink()
    (out / "training/label_2/000001.txt").unlink()
    rendered = []
    monkeypatch.setattr(
        simulated_folder,
        "simulate_frame",
        lambda *arguments: rendered.append(arguments[2]) or simulate_frame(*arguments),
    )
    write_folder(out, 5, COARSE, seed=3, workers=1, val_share=0.4, progress=False)
    assert rendered == [1, 3]
    assert contents(out) == contents(folder)


def test_nothing_half_written_stays(folder, tmp_path, monkeypatch):
    def fails_late(path, objects):
        raise OSError("disk full")

    monkeypatch.setattr(simulated_folder, "write_objects", fails_late)
    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "broken", 1, COARSE, workers=1, progress=False)
    assert not list((tmp_path / "broken").rglob("*.part")) and not list((tmp_path / "broken").rglob("*.bin"))


@pytest.mark.parametrize(
    ("change", "key"),
    [({"seed": 4}, "seed"), ({"frames": 6}, "frames"), ({"settings": replace(COARSE, cars=1.0)}, "simulator")],
)
def test_a_folder_made_with_other_settings_is_an_error_that_names_them(folder, change, key):
    arguments = {"frames": 5, "settings": COARSE, "seed": 3, "val_share": 0.4} | change
    with pytest.raises(InputError, match=rf"{MANIFEST}.*other settings \({key}\)"):
        write_folder(folder, workers=1, progress=False, **arguments)


def test_a_folder_of_somebody_else_is_not_written_into(tmp_path):
    (tmp_path / "training" / "velodyne").mkdir(parents=True)
    with pytest.raises(InputError, match="did not write"):
        write_folder(tmp_path, 1, COARSE, progress=False)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"seed": '])
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=MANIFEST):
        write_folder(tmp_path, 1, COARSE, progress=False)


@pytest.mark.parametrize("arguments", [{"frames": 0}, {"frames": 3, "val_share": 1.5}])
def test_impossible_numbers_are_errors(tmp_path, arguments):
    with pytest.raises(InputError, match=r"frames|val_share"):
        write_folder(tmp_path / "out", settings=COARSE, progress=False, **arguments)
    assert not (tmp_path / "out").exists()


# The dataset.


@pytest.fixture
def small(tmp_path):
    return SimulatedData(
        root=str(tmp_path / "streets"), train_frames=3, val_frames=2, seed=1, workers=1, simulator=COARSE
    )


def test_the_dataset_is_listed_under_its_name():
    assert DATASETS["simulated"] is SimulatedData
    assert parse_source("simulated") == SimulatedData()
    assert parse_source("simulated:/data/streets").root == "/data/streets"


def test_splits_are_rendered_when_opened_and_share_no_frame(small):
    train = small.open("train")
    assert len(train) == 3 and len(every_id(small.folder / "training")) == 3
    val = small.open("val")
    assert isinstance(val, KittiFrames) and len(val) == 2 and not set(train.ids) & set(val.ids)
    assert small.open("all").ids == train.ids + val.ids


def test_frames_are_kept(small):
    before = small.open("train").fingerprint()
    assert small.open("train").fingerprint() == before  # sizes and times of all files


def test_frames_carry_labels_and_what_the_metric_needs(small):
    frames = list(small.open("all"))
    assert sum(len(frame.boxes) for frame in frames) > 0
    assert all(frame.truth.calibration is not None and frame.truth.objects is not None for frame in frames)
    assert all(frame.points.shape[1] == 4 and len(frame.points) > 500 for frame in frames)
    path = small.folder / "training" / "label_2" / f"{frames[0].id}.txt"
    assert len(read_objects(path, scores=False)) == len(frames[0].truth.objects)


def test_the_spec_says_that_it_is_simulated(small):
    assert small.spec.simulated and small.spec.name == "simulated" and small.spec.protocol == "kitti"
    assert small.spec.classes == small.open("val").spec.classes == ("Car", "Pedestrian", "Cyclist")


def test_a_folder_of_another_dataset_choice_is_an_error(small):
    small.open("val")
    with pytest.raises(InputError, match="seed"):
        replace(small, seed=2).open("val")


def test_without_a_root_frames_go_to_a_cache_folder_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path))
    folders = [
        SimulatedData(seed=seed, simulator=simulator).folder
        for seed in (0, 1)
        for simulator in (COARSE, SimulatorSettings())
    ]
    assert len(set(folders)) == 4 and all(folder.parent == tmp_path for folder in folders)
    assert SimulatedData(workers=1).folder == SimulatedData(workers=7).folder
    monkeypatch.delenv("LIDISTILL_CACHE")
    assert SimulatedData().folder.parent.name == "lidistill"


def test_an_unknown_split_is_an_error(small):
    with pytest.raises(InputError, match="'test'"):
        small.open("test")


@pytest.mark.parametrize(
    "values",
    [{"train_frames": 0}, {"val_frames": -1}, {"classes": ("Car", "Car")}, {"classes": ("Bus",)}, {"classes": ()}],
)
def test_impossible_settings_are_errors(values):
    with pytest.raises(InputError, match=rf"^simulated: classes|^data\.{next(iter(values))} is "):
        SimulatedData(**values)


def test_settings_survive_a_file():
    data = SimulatedData(train_frames=7, simulator=replace(COARSE, azimuth_window_deg=(-30.0, 30.0)))
    content = json.loads(json.dumps(named(data)))
    assert content.pop("name") == "simulated"
    assert settings_from(SimulatedData, content, "data") == data


def test_frames_do_not_move_unless_asked(small):
    assert small.streets is small.simulator and small.streets.motion is None
    assert not (small.open("val").folder / "motion").exists()
    frame = small.open("val")[0]
    assert (frame.sequence, frame.time_s, frame.world_from_lidar, frame.boxes.velocity) == (None,) * 4


def test_the_default_frames_are_in_the_folder_of_every_recorded_figure(monkeypatch, tmp_path):
    """Streets that can move have not changed what still ones are made from."""
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path))
    assert SimulatedData().folder.name == "simulated-7a87a499f673"
