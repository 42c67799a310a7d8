"""The cached teacher: training with it is training with the teacher, and what is not exact is refused."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from lidistill import jobs
from lidistill.data.augment import Augmentation, ObjectNoise
from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import DETECTORS, WidthRule, preset
from lidistill.distillation import METHODS
from lidistill.distillation.method import DistillationMethod, MethodConfig
from lidistill.experiment import Distillation
from lidistill.run_folder import RunFolder
from lidistill.training import cache_folder
from lidistill.training.checkpoint import read_weights, save_weights
from lidistill.training.objective import Distilled
from lidistill.training.teacher_cache import CachedTeacher, count_views
from lidistill.types import InputError, Losses
from tests.detectors.small import small_batch, small_config
from tests.journeys.conftest import TINY

FIXED = ["augmentation.paste={}", "augmentation.rotation=0", "augmentation.scale=[1,1]", "augmentation.shuffle=false"]
# a set, maps and heads, and the teacher's boxes beside them
EVERY_PART = ("pointdistiller", "fitnets", "itkd", "logits", "lad")


def counted(teacher):
    """The teacher, and a list that grows whenever it runs."""
    runs = []
    teacher.register_forward_hook(lambda module, given, output: runs.append(1))
    return teacher, runs


def networks(config=None):
    """A student and a teacher whose detections are many."""
    torch.manual_seed(0)
    config = small_config() if config is None else config
    student, teacher = config.thinner(WidthRule.for_compression(4)).build(), config.build().eval()
    for name, parameter in teacher.named_parameters():
        if name.endswith(("conv_class.bias", "heatmap.bias")):
            torch.nn.init.zeros_(parameter)
    return student.train(), teacher


def tiny(detector):
    """A detector's settings on a patch of 12.8 m."""
    config = preset(detector, "simulated")
    (x, _, low, _, _, high), size = config.grid.point_range, config.grid.voxel_size
    return replace(config, grid=VoxelGrid((x, -6.4, low, x + 12.8, 6.4, high), size, config.grid.max_points_per_voxel))


def objective(student, teacher, folder=None, methods=EVERY_PART, teacher_labels=0.45, **options):
    torch.manual_seed(1)
    built = [METHODS[name]().build(teacher.tap_specs, student.tap_specs) for name in methods]
    cache = None if folder is None else CachedTeacher(teacher, folder, 4, **options)
    return Distilled(student, teacher, built, teacher_labels=teacher_labels, cache=cache)


def outcome(distilled, batch):
    """All losses and logs, and the gradient that the student takes from them."""
    distilled.zero_grad()
    losses = distilled(batch)
    losses.total.backward()
    gradients = {f"gradient {name}": p.grad.clone() for name, p in distilled.named_parameters() if p.grad is not None}
    return {**losses.terms, **losses.logs, **gradients}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name].detach(), other[name].detach()) for name in one)


@pytest.mark.parametrize("detector", DETECTORS)
def test_losses_and_gradients_are_those_of_the_running_teacher_for_every_detector(detector, tmp_path):
    student, teacher = networks(tiny(detector))
    teacher, runs = counted(teacher)
    batch = small_batch(size=1)
    expected = outcome(objective(student, teacher), batch)
    assert expected["teacher_labels"] > 0
    filling, replaying = (objective(student, teacher, tmp_path) for _ in range(2))
    assert same(outcome(filling, batch), expected)
    runs.clear()
    assert same(outcome(filling, batch), expected)
    assert not runs
    assert same(outcome(replaying, batch), expected)
    assert len(runs) == 1  # anchors are no part of a frame: a process meets them once
    assert same(outcome(replaying, batch), expected)
    assert len(runs) == 1


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_output_on_a_batch_is_the_teachers_on_each_frame_alone(detector, tmp_path):
    config = tiny(detector)
    student, teacher = networks(config)
    batch = small_batch(size=3)
    voxels = student.prepare(batch)
    with torch.no_grad():
        together = teacher(batch, voxels)
    alone = []
    for row in range(3):
        own = replace(
            small_batch(size=3),
            frame_ids=(str(row),),
            points=batch.points[batch.batch_index == row],
            boxes=(batch.boxes[row],),
        )
        own = replace(own, batch_index=torch.zeros(len(own.points), dtype=torch.int64))
        with torch.no_grad():
            alone.append(teacher(own, student.prepare(own)))
    for cache in (CachedTeacher(teacher, tmp_path, 3), CachedTeacher(teacher, tmp_path, 3)):
        found = cache(batch, voxels)
        for name, tap in found.taps.items():
            assert torch.equal(tap.features, torch.cat([output.taps[name].features for output in alone])), name
            torch.testing.assert_close(tap.features, together.taps[name].features, rtol=1e-4, atol=1e-5)
            if hasattr(tap, "positions"):
                assert torch.equal(tap.positions, together.taps[name].positions)
                assert torch.equal(tap.batch_index, together.taps[name].batch_index)
                assert torch.equal(tap.occupancy, together.taps[name].occupancy)
        for index, head in enumerate(found.heads):
            running = together.heads[index]
            assert (type(head), head.classes, head.grid) == (type(running), running.classes, running.grid)
            assert head.elsewhere(running) == ""  # anchors included
            assert all(
                torch.equal(head.maps[name], torch.cat([o.heads[index].maps[name] for o in alone]))
                for name in head.maps
            )
        for boxes, output in zip(cache.decode(found), alone, strict=True):
            assert torch.equal(boxes.geometry, teacher.decode(output)[0].geometry)
            assert torch.equal(boxes.scores, teacher.decode(output)[0].scores)


def test_without_heads_a_second_run_never_asks_the_teacher(tmp_path):
    student, teacher = networks()
    teacher, runs = counted(teacher)
    batch = small_batch()
    expected = outcome(objective(student, teacher, tmp_path, methods=("fitnets",)), batch)
    runs.clear()
    assert same(outcome(objective(student, teacher, tmp_path, methods=("fitnets",)), batch), expected)
    assert not runs


def stored(folder):
    return sorted(path for path in folder.rglob("*.npz"))


def test_only_what_is_read_is_stored_once_a_frame(tmp_path):
    student, teacher = networks()
    outcome(objective(student, teacher, tmp_path, methods=("fitnets",), teacher_labels=None), small_batch())
    assert [path.name.split(".", 1)[1] for path in stored(tmp_path)] == ["neck.npz"] * 2
    outcome(objective(student, teacher, tmp_path, methods=("logits",), teacher_labels=None), small_batch())
    assert len(stored(tmp_path)) == 4


def test_a_frame_is_recognised_in_another_batch_and_at_another_place(tmp_path):
    student, teacher = networks()
    teacher, runs = counted(teacher)
    batch = small_batch(size=3)
    keys = batch.batch_index
    turned = replace(
        batch,
        points=torch.cat([batch.points[keys == row] for row in (2, 0)]),
        boxes=(batch.boxes[2], batch.boxes[0]),
        frame_ids=("2", "0"),
    )
    sizes = torch.bincount(keys)
    turned = replace(turned, batch_index=torch.repeat_interleave(torch.arange(2), sizes[[2, 0]]))
    expected = outcome(objective(student, teacher, tmp_path / "fresh"), turned)
    distilled = objective(student, teacher, tmp_path / "kept")
    outcome(distilled, batch)
    runs.clear()
    assert same(outcome(distilled, turned), expected)
    assert not runs


@pytest.mark.parametrize(("change", "changed"), [("point", 2), ("order", 1), ("one frame", 1), ("caps", 2)])
def test_another_input_is_never_answered_from_the_store(change, changed, tmp_path):
    student, teacher = networks()
    teacher, runs = counted(teacher)
    batch = small_batch()
    distilled = objective(student, teacher, tmp_path)
    outcome(distilled, batch)
    runs.clear()
    points = batch.points.clone()
    if change == "point":
        points[:, 3] += 1e-6
    elif change == "order":
        points[:600] = points[:600].flip(0)
    elif change == "one frame":
        points[-1, 0] += 0.5
    else:
        distilled.student.eval()  # has other caps, and keeps voxels that training dropped
        assert distilled.student.prepare(batch).num_over_cap != distilled.student.train().prepare(batch).num_over_cap
        distilled.student.eval()
    outcome(distilled, replace(batch, points=points))
    assert len(runs) == changed


@pytest.mark.parametrize("kind", ["weights", "settings", "precision"])
def test_the_outputs_of_another_teacher_lie_elsewhere(kind, tmp_path):
    _, teacher = networks()
    mine = CachedTeacher(teacher, tmp_path, 1).folder
    if kind == "weights":
        next(teacher.parameters()).data.view(-1)[0] += 1e-6
        other = CachedTeacher(teacher, tmp_path, 1)
    elif kind == "settings":
        teacher.config = replace(teacher.config, grid=replace(teacher.config.grid, max_voxels_eval=401))
        other = CachedTeacher(teacher, tmp_path, 1)
    else:
        other = CachedTeacher(teacher, tmp_path, 1, precision="float16")
    assert other.folder != mine
    assert CachedTeacher(networks()[1], tmp_path, 1).folder == mine


def test_a_cache_cannot_stand_in_for_another_teacher(tmp_path):
    student, teacher = networks()
    with pytest.raises(ValueError, match="belongs to another teacher"):
        Distilled(student, teacher, [], teacher_labels=0.3, cache=CachedTeacher(networks()[1], tmp_path, 1))


@pytest.mark.parametrize("damage", ["cut", "empty", "left aside"])
def test_interrupted_files_are_ignored_and_written_again(damage, tmp_path):
    student, teacher = networks()
    batch = small_batch()
    expected = outcome(objective(student, teacher, tmp_path), batch)
    files = stored(tmp_path)
    for path in files:
        content = path.read_bytes()
        if damage == "left aside":
            path.rename(path.with_name(f".{path.name}.0000.part"))
        else:
            path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    assert same(outcome(objective(student, teacher, tmp_path), batch), expected)
    again = objective(student, teacher, tmp_path)
    assert same(outcome(again, batch), expected)
    assert stored(tmp_path) == files
    assert all(again.cache.store.load(*path.name.removesuffix(".npz").split(".", 1)) for path in files)


def test_a_folder_that_cannot_be_written_costs_a_warning_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("in the way")
    student, teacher = networks()
    expected = outcome(objective(student, teacher, tmp_path / "good"), small_batch())
    with pytest.warns(UserWarning, match=r"outputs are not stored, .*the folder cannot be made"):
        distilled = objective(student, teacher, tmp_path / "file" / "teachers")
    assert same(outcome(distilled, small_batch()), expected)
    assert same(outcome(distilled, small_batch()), expected)


def test_a_disk_that_fills_up_costs_a_warning_and_nothing_else(tmp_path, monkeypatch):
    student, teacher = networks()
    expected = outcome(objective(student, teacher, tmp_path / "good"), small_batch())
    distilled = objective(student, teacher, tmp_path / "full")

    def full(path, record):
        raise InputError(f"{path}: could not be written (No space left on device)")

    monkeypatch.setattr(cache_folder, "write_record", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert same(outcome(distilled, small_batch()), expected)
    assert same(outcome(distilled, small_batch()), expected)


Usage = namedtuple("Usage", "total used free")


def test_the_space_is_said_before_the_second_batch_and_refused_where_it_is_not_there(tmp_path, monkeypatch, capfd):
    student, teacher = networks()
    distilled = objective(student, teacher, tmp_path, methods=("fitnets",), teacher_labels=None, num_views=2)
    outcome(distilled, small_batch())
    assert capfd.readouterr().err == ""
    size = sum(path.stat().st_size for path in stored(tmp_path)) / 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 3 * 10**11))
    outcome(distilled, small_batch())
    said = capfd.readouterr().err
    assert (
        f"{8 * size / 1e6:.1f} MB for 4 frames x 2 views, {2 * size / 1e6:.1f} MB already stored, 300.0 GB free" in said
    )
    outcome(distilled, small_batch())
    assert capfd.readouterr().err == ""
    for free, fits in ((6 * size, True), (6 * size - 1, False)):  # two of eight are there
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10**12, 0, free))
        again = objective(student, teacher, tmp_path, methods=("fitnets",), teacher_labels=None, num_views=2)
        outcome(again, small_batch())
        if fits:
            outcome(again, small_batch())
        else:
            with pytest.raises(InputError, match=r"do not fit .*distillation.cache_precision=float16 to halve them"):
                again(small_batch())


def test_float16_gives_the_same_training_whether_stored_or_not(tmp_path):
    student, teacher = networks()
    batch = small_batch()
    exact = outcome(objective(student, teacher), batch)
    first = outcome(objective(student, teacher, tmp_path, precision="float16"), batch)
    assert same(outcome(objective(student, teacher, tmp_path, precision="float16"), batch), first)
    assert not same(first, exact)
    for name in exact:
        if name.startswith(("fitnets/", "logits/")):
            assert first[name].item() == pytest.approx(exact[name].item(), rel=2e-3)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_teacher_runs_under_the_precision_of_the_step_wherever_a_method_asks(dtype, tmp_path):
    class Asks(DistillationMethod):
        config = MethodConfig

        def forward(self, teacher, student, batch):
            with torch.autocast("cpu", enabled=False):
                self.seen = teacher.taps["neck"].features
            return Losses({"asks/one": student.taps["neck"].features.float().sum()})

    class Settled:
        @staticmethod
        def share_of_weight(progress):
            return 1.0

    student, teacher = networks()
    seen = []
    for cache in (None, CachedTeacher(teacher, tmp_path, 2), CachedTeacher(teacher, tmp_path, 2)):
        method = Asks()
        method.config = Settled
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            Distilled(student, teacher, [method], cache=cache)(small_batch(size=1))
        seen.append(method.seen)
    assert seen[0].dtype == (dtype or torch.float32)
    assert all(other.dtype == seen[0].dtype and torch.equal(other, seen[0]) for other in seen[1:])
    assert not any(other.requires_grad for other in seen)
    assert len(stored(tmp_path)) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is None):
        Distilled(student, teacher, [method], cache=CachedTeacher(teacher, tmp_path, 2))(small_batch(size=1))
    assert len(stored(tmp_path)) == 2  # another precision, another output


def test_views_are_the_flips_that_may_or_may_not_happen():
    still = Augmentation.none()
    assert count_views(still) == 1
    assert count_views(replace(still, flip_y=0.5)) == 2
    assert count_views(replace(still, flip_y=0.5, flip_x=0.1)) == 4
    assert count_views(replace(still, flip_y=1.0)) == 1


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"paste": {"Car": 3}}, "augmentation.paste={}"),
        ({"object_noise": ObjectNoise()}, "augmentation.object_noise=null"),
        ({"rotation": 0.1}, "augmentation.rotation=0"),
        ({"scale": (0.95, 1.05)}, r"augmentation.scale=\[1,1\]"),
        ({"scale": (1.1, 1.1)}, r"augmentation.scale=\[1,1\]"),
        ({"translation_std": (0.0, 0.2, 0.0)}, r"augmentation.translation_std=\[0,0,0\]"),
        ({"shuffle": True}, "augmentation.shuffle=false"),
    ],
)
def test_augmentation_that_makes_new_inputs_is_refused_with_the_remedy(change, remedy):
    with pytest.raises(InputError, match=f"set {remedy}, or distillation.cache_teacher=false"):
        count_views(replace(Augmentation.none(), **change))


def test_all_remedies_are_named_at_once():
    with pytest.raises(
        InputError, match=r"paste={} augmentation.rotation=0 augmentation.scale=\[1,1\] augmentation.shuffle=false, or"
    ):
        count_views(Augmentation())


def test_batch_statistics_are_refused(tmp_path):
    student, teacher = networks()
    with pytest.raises(InputError, match="set distillation.teacher_bn=eval"):
        Distilled(student, teacher, [], "train-frozen", 0.3, CachedTeacher(teacher, tmp_path, 1))
    with pytest.raises(InputError, match="set distillation.teacher_bn=eval"):
        Distillation("teacher", (), teacher_bn="train-frozen", teacher_labels=0.3, cache_teacher=True)


def test_an_unknown_precision_is_refused(tmp_path):
    for make in (
        lambda: CachedTeacher(networks()[1], tmp_path, 1, precision="int8"),
        lambda: Distillation("teacher", (), cache_precision="int8"),
    ):
        with pytest.raises(InputError, match="distillation.cache_precision is 'int8'; use one of float32, float16"):
            make()


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """A run folder with weights that nobody trained."""
    base = tmp_path_factory.mktemp("cached")
    experiment = jobs.supervised("pointpillars", data=f"simulated:{base / 'data'}", overrides=TINY)
    torch.manual_seed(5)
    folder = RunFolder(base / "teacher")
    folder.write_experiment(experiment.to_dict())
    save_weights(folder.checkpoint, experiment.detector.build())
    return folder.path


def trained(teacher, folder, *overrides, steps=10):
    methods = ["pointdistiller", "logits", "fitnets"]
    overrides = [*FIXED, f"training.steps={steps}", "distillation.teacher_labels=0.02", *overrides]
    jobs.train(
        jobs.distilled(str(teacher), compression=4, methods=methods, overrides=overrides),
        folder,
        device="cpu",
        certificate=False,
    )
    return read_weights(folder / "checkpoint.pt")


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "flips", [["augmentation.flip_y=0"], ["augmentation.flip_x=0.5"]], ids=["no augmentation", "flips"]
)
def test_a_cached_training_ends_with_the_weights_of_an_uncached_one(flips, teacher_run, tmp_path, monkeypatch):
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path / "cache"))
    options = [*flips, "training.batch_size=1"]
    live = trained(teacher_run, tmp_path / "live", *options)
    assert not (tmp_path / "cache" / "teachers").exists()
    for name in ("filling", "replaying"):
        assert same_weights(trained(teacher_run, tmp_path / name, *options, "distillation.cache_teacher=true"), live)


def test_the_weights_do_not_depend_on_what_was_stored(teacher_run, tmp_path, monkeypatch):
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path / "cache"))
    options = ["distillation.cache_teacher=true"]  # and y flipped half of the time, as by default
    filling = trained(teacher_run, tmp_path / "filling", *options)
    files = {path: path.stat().st_mtime_ns for path in stored(tmp_path / "cache" / "teachers")}
    views = {path.name.split(".")[0] for path in files}
    assert len(files) == 4 * len(views)  # encoder, neck, heads and boxes
    assert 8 < len(views) <= 16
    for path in list(files)[::3]:
        path.unlink()
    assert same_weights(trained(teacher_run, tmp_path / "replaying", *options), filling)
    assert all(path.is_file() for path in files)
    assert all(path.stat().st_mtime_ns == files[path] for row, path in enumerate(files) if row % 3)
    trained(teacher_run, tmp_path / "live")
    losses = [[row["loss"] for row in RunFolder(tmp_path / name).read_log()] for name in ("filling", "live")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_an_experiment_that_could_not_be_replayed_is_refused_before_it_starts(teacher_run):
    with pytest.raises(InputError, match="this augmentation makes every input a new one"):
        jobs.distilled(
            str(teacher_run), compression=4, methods=["logits"], overrides=["distillation.cache_teacher=true"]
        )
