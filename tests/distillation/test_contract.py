"""What every method promises, checked for every method on made-up outputs and on every detector."""

from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import DETECTORS, WidthRule, preset
from lidistill.distillation import METHODS
from lidistill.distillation.method import DistillationMethod, MethodConfig
from lidistill.distillation.proposals import ProposalSettings
from lidistill.jobs.method_catalogue import taps_of
from lidistill.outputs import DetectorOutput, FeatureSet
from lidistill.training.objective import Distilled
from lidistill.types import Boxes, Frame, InputError, Losses, collate
from tests.distillation import fakes

SMALL = {"num_queries": 12, "num_neighbours": 8}  # of PointDistiller: more rows than graphs, so that the choice matters


def settings_of(name) -> list[MethodConfig]:
    """A method at its defaults, and in its other forms."""
    config = METHODS[name]
    if name == "pointdistiller":
        forms = [
            config(),
            config(**SMALL),
            config(form="released", **SMALL),
            config(form="released", reweight=False, **SMALL),
        ]
        forms += [
            config(taps=("bev.0", "bev.1", "neck"), **SMALL),
            config(pooling="max", edge="residual", sampling="mixed", **SMALL),
        ]
        return forms
    if name == "fitnets":
        return [config(), config(taps=("bev.0", "neck"), foreground=0.5)]
    if name == "itkd":
        return [
            config(),
            config(variant="paper", heatmap="logits"),
            config(attention_weight=0.0, detach_target=True, widths=(6, 4)),
        ]
    if name == "logits":
        return [config(), config(temperature=4.0, direction_weight=0.0)]
    if name == "hinton":
        return [config(), config(temperature=1.0, form="softmax")]
    if name == "rdd":
        few = ProposalSettings(max_proposals=12)
        forms = [
            config(proposals=few),
            config(proposals=few, order="literal", boxes="decoded"),
            config(proposals=few, mask="soft", align_on="regions"),
        ]
        return [
            *forms,
            config(proposals=few, disparity="gaussian_mi", mask="topk", softmax="spatial", logit_weight=0.0),
        ]
    if name == "attention_transfer":
        return [config(), config(taps=("bev.0", "neck"), form="absolute")]
    if name == "channelwise":
        return [config(), config(taps=("bev.1", "neck"), temperature=4.0)]
    if name == "crd":
        return [
            config(),
            config(taps=("bev.1", "points"), region_m=1.0, most_examples=20),
            config(over="frames", channels=4),
        ]
    if name == "overhaul":
        return [config(), config(taps=("bev.0", "bev.1", "neck"), scale="published", margin="zero")]
    if name == "fkd":
        published = {"relation_stride": 1, "pool": 8}
        return [config(), config(taps=("bev.1", "neck"), temperature=0.5, relation_weight=0.0), config(**published)]
    if name == "relational":
        return [config(), config(taps=("bev.1", "neck"), most_objects=2)]
    if name == "mimic":
        return [config(), config(taps=("bev.1", "neck"), size=3)]
    if name == "fine_grained":
        return [config(), config(taps=("bev.1", "neck"), share=0.2)]
    if name == "gid":
        return [config(), config(response_weight=0.0, num_instances=3), config(feature_weight=0.0, relation_weight=0.0)]
    if name == "se_ssd":
        return [config(), config(score_threshold=0.1, min_overlap=0.3, max_boxes=60, beta=0.1)]
    return [config()]


# may have no term of their own
ASSIGNING = [name for name, config in METHODS.items() if config().build(fakes.specs(8), fakes.specs(5)).assigns]
TEACHING = [name for name in METHODS if name not in ASSIGNING]
CASES = [pytest.param(config, id=f"{name}-{row}") for name in TEACHING for row, config in enumerate(settings_of(name))]
each_method = pytest.mark.parametrize("config", CASES)
# Of methods that read no head, one kind of head says all.
each_method_and_kind = pytest.mark.parametrize(
    ("config", "kind"),
    [
        pytest.param(case.values[0], kind, id=f"{case.id}-{kind}")
        for case in CASES
        for kind in (fakes.HEADS if "predictions" in case.values[0].needs else ["anchor"])
    ],
)


def build(config, kind="anchor") -> DistillationMethod:
    torch.manual_seed(0)
    method = config.build(fakes.specs(8, kind), fakes.specs(5, kind))
    for parameter in method.parameters():
        if not parameter.any():  # a scale that starts at zero hides the layers before it
            torch.nn.init.normal_(parameter, std=0.5)
    return method


def pair(batch, kind="anchor", coarser=1) -> tuple[DetectorOutput, DetectorOutput]:
    """A teacher and a student, both with heads of `kind`; the student's cells are `coarser` times as large."""
    return fakes.output(8, batch, 1, kind=kind, requires_grad=True), fakes.output(
        5, batch, 2, kind=kind, coarser=coarser, requires_grad=True
    )


def set_taps_of(config) -> list[str]:
    return [tap for tap in taps_of(build(config)) if not fakes.specs(8)[tap].is_map]


def reached_by(losses: Losses, taught: DetectorOutput, learnt: DetectorOutput, method: DistillationMethod) -> set[str]:
    """Tensors of the student that a step would change; all others, and the teacher's, have no or finite gradients."""
    losses.total.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(tensor.grad is None for tensor in fakes.tensors(taught).values())
    gradients = {name: tensor.grad for name, tensor in fakes.tensors(learnt).items() if tensor.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    return {name for name, gradient in gradients.items() if gradient.any()}


def values(losses: Losses) -> dict[str, float]:
    return {name: term.item() for name, term in losses.terms.items()}


def assert_sound(losses: Losses, name: str) -> None:
    """Scalar, finite, in full precision, named after the method, and part of a graph; logs are outside of it."""
    assert losses.terms
    for key, term in losses.terms.items():
        assert key.startswith(f"{name}/")
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert term.isfinite(), key
        assert term.requires_grad, key
    for key, value in losses.logs.items():
        assert key.startswith(f"{name}/")
        assert value.shape == ()
        assert not value.requires_grad


def assert_teaches(config, kind, coarser=1) -> None:
    if config.name == "se_ssd":
        config = replace(config, min_overlap=0.0)  # random boxes hardly overlap
    batch = fakes.make_batch()
    taught, learnt = pair(batch, kind, coarser)
    method = build(config, kind)
    losses = method(taught, learnt, batch)
    assert_sound(losses, config.name)
    assert losses.total > 0
    reached = reached_by(losses, taught, learnt, method)
    used = [f"tap {tap}" for tap in taps_of(method)]
    if config.name == "gid" and method.adapter is None:  # it is asked for the heads' answers alone
        used = []
    assert set(used) <= reached
    for head in range(0 if used else len(learnt.heads)):
        assert any(name.startswith(f"head {head} ") for name in reached)


@each_method_and_kind
def test_terms_are_finite_and_reach_adapters_and_student_but_never_the_teacher(config, kind):
    assert_teaches(config, kind)


def needs_one_grid(config, kind) -> bool:
    """Whether what a method compares has no counterpart in a student of other cells."""
    return config.name in ("logits", "hinton", "gid") or (
        config.name == "itkd" and config.attention_weight > 0 and kind == "anchor"
    )


@each_method_and_kind
def test_a_student_with_larger_cells_is_taught_or_refused(config, kind):
    if not needs_one_grid(config, kind):
        assert_teaches(config, kind, coarser=2)
        return
    batch = fakes.make_batch()
    with pytest.raises(InputError, match=f"^{config.name}: .* grid"):
        build(config, kind)(*pair(batch, kind, coarser=2), batch)


@each_method
def test_the_same_question_twice_has_the_same_answer(config):
    batch = fakes.make_batch()
    method = build(config)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    first = method(*pair(batch), batch)
    assert values(method(*pair(batch), batch)) == values(first)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@each_method_and_kind
def test_nothing_that_was_given_is_changed(config, kind):
    batch = fakes.make_batch()
    taught, learnt = pair(batch, kind)
    before = [
        {name: tensor.detach().clone() for name, tensor in fakes.tensors(given).items()} for given in (taught, learnt)
    ]
    build(config, kind)(taught, learnt, batch).total.backward()
    for kept, given in zip(before, (taught, learnt), strict=True):
        assert all(torch.equal(kept[name], tensor.detach()) for name, tensor in fakes.tensors(given).items())


@each_method
def test_weight_scales_every_term(config):
    batch = fakes.make_batch()
    single = values(build(config)(*pair(batch), batch))
    double = values(build(replace(config, weight=2 * config.weight))(*pair(batch), batch))
    assert double == pytest.approx({name: 2 * value for name, value in single.items()}, rel=1e-6)


@each_method_and_kind
@pytest.mark.parametrize(
    ("rows", "objects"),
    [((40, 30), 0), ((0, 25), 2), ((25, 0, 20), 1), ((0, 0), 2), ((30,), 2), ((1,), 1), ((1, 1), 0), ((1, 30), 1)],
    ids=[
        "no object",
        "first frame empty",
        "middle frame empty",
        "all empty",
        "batch of one",
        "one row",
        "one row a frame",
        "one row in one frame",
    ],
)
def test_sparse_batches_give_finite_losses_and_gradients(config, kind, rows, objects):
    batch = fakes.make_batch(rows, objects)
    taught, learnt = pair(batch, kind)
    method = build(config, kind)
    losses = method(taught, learnt, batch)
    assert_sound(losses, config.name)
    losses.total.backward()
    for tensor in [*method.parameters(), *fakes.tensors(learnt).values()]:
        assert tensor.grad is None or tensor.grad.isfinite().all()
    assert all(parameter.grad is not None for parameter in method.parameters())


@pytest.mark.parametrize("config", [case for case in CASES if set_taps_of(case.values[0])])
def test_no_frame_with_rows_gives_exactly_zero_on_set_taps(config):
    batch = fakes.make_batch((0, 0))
    losses = build(config)(*pair(batch), batch)
    assert all(losses.terms[f"{config.name}/{tap}"].item() == 0 for tap in set_taps_of(config))


def shuffled(result: DetectorOutput, orders) -> DetectorOutput:
    """Set taps with the rows of each frame in another order."""
    taps = dict(result.taps)
    for name, tap in taps.items():
        if isinstance(tap, FeatureSet):
            occupancy = None if tap.occupancy is None else tap.occupancy[orders]
            taps[name] = FeatureSet(tap.features[orders], tap.batch_index[orders], tap.positions[orders], occupancy)
    return DetectorOutput(taps, result.heads)


@pytest.mark.parametrize("config", [case for case in CASES if getattr(case.values[0], "sampling", "top") == "top"])
def test_the_order_of_rows_within_a_frame_is_irrelevant(config):
    # Distinct counts, since equal ones are told apart by their row.
    batch = fakes.make_batch((31, 28))
    taught, learnt = pair(batch)
    counts = torch.cat([torch.randperm(31), torch.randperm(28) + 100]) + 1
    encoder = replace(taught.taps["encoder"], occupancy=counts)
    taught = DetectorOutput({**taught.taps, "encoder": encoder}, taught.heads)
    orders = torch.cat([torch.randperm(31), 31 + torch.randperm(28)])
    method = build(config)
    expected = values(method(taught, learnt, batch))
    assert values(method(shuffled(taught, orders), shuffled(learnt, orders), batch)) == pytest.approx(
        expected, rel=1e-4
    )


@each_method_and_kind
def test_autocast_changes_nothing_but_the_rounding_of_the_features(config, kind):
    batch = fakes.make_batch()
    taught, learnt = pair(batch, kind)

    def rounded(given, dtype):
        taps = {
            name: replace(tap, features=tap.features.to(torch.bfloat16).to(dtype)) for name, tap in given.taps.items()
        }
        heads = [
            replace(head, maps={name: value.to(torch.bfloat16).to(dtype) for name, value in head.maps.items()})
            for head in given.heads
        ]
        return DetectorOutput(taps, tuple(heads))

    method = build(config, kind)
    expected = method(rounded(taught, torch.float32), rounded(learnt, torch.float32), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method(rounded(taught, torch.bfloat16), rounded(learnt, torch.bfloat16), batch)
    assert_sound(losses, config.name)
    assert values(losses) == pytest.approx(values(expected), rel=1e-5)
    losses.total.backward()
    assert any(tensor.grad is not None for tensor in fakes.tensors(learnt).values())


@pytest.mark.parametrize(
    "config",
    [METHODS["pointdistiller"](taps=("neck",), **SMALL), METHODS["fitnets"]()],
    ids=["pointdistiller", "fitnets"],
)
def test_half_precision_maps_of_another_grid_are_compared_in_full_precision(config):
    batch = fakes.make_batch()
    taught, learnt = pair(batch)
    coarse = replace(
        learnt.taps["neck"],
        features=learnt.taps["neck"].features[..., ::2, ::2].to(torch.bfloat16),
        grid=fakes.COARSE,
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = build(config)(taught, DetectorOutput({**learnt.taps, "neck": coarse}, learnt.heads), batch)
    assert_sound(losses, config.name)
    losses.total.backward()
    assert learnt.taps["neck"].features.grad.abs().sum() > 0


@each_method
def test_without_gradient_the_values_are_the_same(config):
    batch = fakes.make_batch()
    method = build(config)
    expected = values(method(*pair(batch), batch))
    with torch.no_grad():
        losses = method(*pair(batch), batch)
    assert values(losses) == expected
    assert not any(term.requires_grad for term in losses.terms.values())


@each_method
def test_undecayed_names_are_own_parameters(config):
    method = build(config)
    assert method.no_decay() <= {name for name, _ in method.named_parameters()}


# On real detectors, small


@pytest.fixture(scope="module")
def frames():
    draw = torch.Generator().manual_seed(3)

    def frame(name, rows, objects):
        points = torch.rand(rows, 4, generator=draw) * torch.tensor([12.8, 12.8, 2.0, 1.0]) + torch.tensor(
            [0.0, -6.4, -2.0, 0.0]
        )
        places = torch.rand(objects, 2, generator=draw) * 10 + torch.tensor([1.0, -5.0])
        sizes = torch.tensor([[-1.0, 3.9, 1.6, 1.5]]).expand(objects, 4)
        return Frame(
            name,
            points,
            Boxes(
                torch.cat([places, sizes, torch.rand(objects, 1, generator=draw)], dim=1), torch.zeros(objects).long()
            ),
        )

    return {
        "frames": [frame("a", 600, 2), frame("b", 500, 1)],
        "with an empty one": [frame("c", 0, 0), frame("d", 400, 0)],
    }


def tiny(name):
    """A detector's settings for simulated scenes, on a patch of 12.8 m."""
    config = preset(name, "simulated")
    (x, _, low, _, _, high), size = config.grid.point_range, config.grid.voxel_size
    grid = VoxelGrid((x, -6.4, low, x + 12.8, 6.4, high), size, config.grid.max_points_per_voxel)
    return replace(config, grid=grid)


UNTRAINED = {
    "rdd": {"lambda_value": 0.0},  # features before training are too much alike to be selected
    "se_ssd": {"score_threshold": 0.0, "min_overlap": 0.0},  # no box is sure, and few are alike
}


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("method", TEACHING)
@pytest.mark.parametrize("which", ["frames", "with an empty one"])
def test_every_method_teaches_every_detector(detector, method, which, frames):
    torch.manual_seed(0)
    config = tiny(detector)
    teacher, student = config.build().eval(), config.thinner(WidthRule.for_compression(4)).build().train()
    for name, parameter in teacher.named_parameters():
        # an untrained anchor head gives scores of 0.01, which no method takes for objects
        if name.endswith("conv_class.bias"):
            torch.nn.init.zeros_(parameter)
    names = set(student.state_dict())
    built = METHODS[method](**UNTRAINED.get(method, {})).build(teacher.tap_specs, student.tap_specs)
    batch = collate(frames[which])
    voxels = student.prepare(batch)
    with torch.no_grad():
        taught = teacher(batch, voxels)
    losses = built(taught, student(batch, voxels), batch)
    assert_sound(losses, method)
    losses.total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in built.parameters())
    if which == "frames":
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert set(student.state_dict()) == names
    assert not any(isinstance(module, DistillationMethod) for module in student.modules())


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("method", ASSIGNING)
@pytest.mark.parametrize("which", ["frames", "with an empty one"])
def test_every_assigning_method_lets_the_teacher_assign_for_every_detector(detector, method, which, frames):
    torch.manual_seed(0)
    config = tiny(detector)
    teacher, student = config.build(), config.thinner(WidthRule.for_compression(4)).build().train()
    built = METHODS[method]().build(teacher.tap_specs, student.tap_specs)
    batch = collate(frames[which])
    losses = Distilled(student, teacher, [built])(batch)
    assert losses.total.isfinite()
    losses.total.backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    with torch.no_grad():
        learnt = student.eval()(batch)
        plain = student.loss(learnt, batch).total
        assigned = student.loss(learnt, batch, ranked_by=teacher(batch)).total
    assert (assigned != plain) == (which == "frames")


@pytest.mark.parametrize("method", TEACHING)
def test_a_few_steps_towards_the_teacher_lower_the_loss(method):
    batch = fakes.make_batch()
    taught, learnt = fakes.output(8, batch, 1), fakes.output(8, batch, 2, requires_grad=True)
    built = METHODS[method]().build(fakes.specs(8), fakes.specs(8))
    optimiser = torch.optim.Adam([*fakes.tensors(learnt).values(), *built.parameters()], lr=0.02)
    history = []
    for _ in range(15):
        loss = built(taught, learnt, batch).total
        history.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert history[-1] < 0.9 * history[0]
