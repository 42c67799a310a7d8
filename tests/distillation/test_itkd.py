from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.distillation.head_attention import by_frame, channel_attention
from lidistill.distillation.itkd import ItkdConfig, mean_or_zero
from lidistill.distillation.shared_autoencoder import SharedAutoencoder
from lidistill.ops.kernels.interchanged_difference import ROWS_AT_ONCE, Shares, interchanged_difference
from lidistill.outputs import (
    CenterHeadOutput,
    DetectorOutput,
    FeatureMap,
    HeadSpec,
    MapSpec,
    ObjectRows,
    SetSpec,
    object_cells,
)
from lidistill.types import Boxes, InputError, MapGrid
from tests.distillation import fakes
from tests.reference import itkd as slow

BATCH = fakes.make_batch(objects=3)
SMALL = {"widths": (12, 7, 5), "max_objects": 20}
EVEN = Shares(1.0, 1.0, fixed_target=False)


def pair(kind="anchor", **options):
    return fakes.output(6, BATCH, 1, kind=kind, requires_grad=True), fakes.output(
        4, BATCH, 2, kind=kind, requires_grad=True, **options
    )


def build(config, kind="anchor"):
    torch.manual_seed(0)
    return config.build(fakes.specs(6, kind), fakes.specs(4, kind))


def only(part, **options):
    weights = {f"{other}_weight": float(other == part) for other in ("interchange", "compressed", "attention")}
    return ItkdConfig(**{**SMALL, **weights, **options})


def centre_head(seed, classes, velocity=False, grid=fakes.GRID):
    draw = torch.Generator().manual_seed(seed)
    widths = {"heatmap": len(classes), "offset": 2, "height": 1, "size": 3, "rotation": 2} | (
        {"velocity": 2} if velocity else {}
    )
    maps = {
        name: torch.randn(BATCH.size, width, *grid.shape, generator=draw).requires_grad_()
        for name, width in widths.items()
    }
    return CenterHeadOutput(tuple(classes), maps, grid)


def with_heads(heads, other_heads):
    """Outputs with these heads, and the method that compares nothing else."""
    specs = {
        "neck": MapSpec(3),
        **{f"head.{i}": HeadSpec(head.object_width, type(head)) for i, head in enumerate(heads)},
    }
    method = only("attention").build(specs, specs)
    neck = {"neck": FeatureMap.at(torch.zeros(BATCH.size, 3, *fakes.CELLS), fakes.ORIGIN, fakes.CELL)}
    return method, lambda batch=BATCH: method(
        DetectorOutput(neck, tuple(heads)), DetectorOutput(neck, tuple(other_heads)), batch
    )


# Autoencoder


def maps(wide=9, narrow=4, size=(7, 5), dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)
    shapes = ((2, wide, *size), (2, narrow, *size))
    taught, learnt = (torch.randn(shape, generator=draw).to(dtype) for shape in shapes)
    return taught, learnt.requires_grad_()


def gradients(module):
    return {
        name: parameter.grad.flatten(1) if parameter.dim() > 1 else parameter.grad
        for name, parameter in module.named_parameters()
    }


@pytest.mark.parametrize("fixed_target", [False, True])
@pytest.mark.parametrize("buffer_last", [False, True], ids=["released", "paper"])
@pytest.mark.parametrize("mix", [(1.0, 1.0), (1.0, 0.25)], ids=["summed", "weighted apart"])
def test_the_sweep_equals_the_stack_of_convolutions(monkeypatch, buffer_last, fixed_target, mix):
    monkeypatch.setitem(ROWS_AT_ONCE, "cpu", 16)  # several blocks a frame, the last one shorter
    module = SharedAutoencoder(9, 4, (8, 6, 5), buffer_last).double()
    twin = slow.Straightforward(module).double()
    taught, learnt = maps(dtype=torch.float64)
    own = interchanged_difference(taught, learnt, module.paths(), replace(EVEN, fixed_target=fixed_target))
    (mix[0] * own[0] + mix[1] * own[1]).backward()
    gradient, learnt.grad = learnt.grad, None
    expected = twin(taught, learnt, fixed_target)
    (mix[0] * expected[0] + mix[1] * expected[1]).backward()
    torch.testing.assert_close(torch.stack(own), torch.stack(expected))
    torch.testing.assert_close(gradient, learnt.grad)
    for one, other in zip(sorted(gradients(module).items()), sorted(renamed(gradients(twin)).items()), strict=True):
        assert one[0] == other[0]
        torch.testing.assert_close(one[1], other[1])


def renamed(values):
    """Names of the twin in those of the module: its stacks count the ReLUs too."""
    result = {}
    for name, value in values.items():
        part, *rest = name.split(".")
        if part in ("encoder", "decoder"):
            rest = [str(int(rest[0]) // 2), rest[1]]
        result[".".join(["widening" if part == "buffer" else part, *rest])] = value
    return result


@pytest.mark.parametrize("widths", [(8, 5), (5,)])
@pytest.mark.parametrize("shares", [Shares(2.0, 0.0, False), Shares(0.0, 3.0, False), Shares(0.5, 4.0, True)])
def test_shares_scale_their_part_and_zero_leaves_it_out(shares, widths):
    module = SharedAutoencoder(9, 4, widths, buffer_last=False)
    taught, learnt = maps()
    plain = slow.Straightforward(module)(taught, learnt)
    values = interchanged_difference(taught, learnt, module.paths(), shares)
    torch.testing.assert_close(
        torch.stack(values), torch.stack([shares.interchange * plain[0], shares.codes * plain[1]])
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "turned", "cropped", "half"])
def test_the_layout_of_the_maps_changes_nothing(layout):
    module = SharedAutoencoder(9, 4, (8, 5), buffer_last=False)
    taught, learnt = maps()
    changes = {
        "contiguous": lambda value: value,
        "channels_last": lambda value: value.contiguous(memory_format=torch.channels_last),
        "turned": lambda value: value.transpose(2, 3).contiguous().transpose(2, 3),
        "cropped": lambda value: torch.nn.functional.pad(value, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
        "half": lambda value: value.to(torch.bfloat16).float(),
    }
    results = []
    for change in (changes[layout] if layout == "half" else changes["contiguous"], changes[layout]):
        one, other = change(taught), change(learnt.detach())
        if layout == "half" and results:
            one, other = one.to(torch.bfloat16), other.to(torch.bfloat16)
        other.requires_grad_()
        value = torch.stack(interchanged_difference(one, other, module.paths(), EVEN)).sum()
        value.backward()
        assert other.grad.dtype == other.dtype
        results.append((value, other.grad.float()))
    torch.testing.assert_close(results[1][0], results[0][0])
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-2 if layout == "half" else 1e-5, atol=1e-6)


def test_equal_rows_behind_an_identity_have_equal_codes():
    module = SharedAutoencoder(4, 4, (3, 2), buffer_last=False)
    torch.nn.init.eye_(module.widening.weight)
    torch.nn.init.zeros_(module.widening.bias)
    taught, _ = maps(4, 4)
    assert interchanged_difference(taught, taught, module.paths(), EVEN)[1].item() == 0


def object_cells_of(like):
    places = object_cells(like.grid, BATCH.boxes, 20)
    width = fakes.CELLS[1]
    return [
        [divmod(int(row), width) for row, frame in zip(places.rows, places.frames, strict=True) if frame == b]
        for b in range(BATCH.size)
    ]


def test_released_terms_are_the_slow_forms():
    taught, learnt = pair()
    method = build(ItkdConfig(attention_weight=0.0, interchange_weight=2.0, weight=1.5, **SMALL))
    twin = slow.Straightforward(method.autoencoder)
    one, other = taught.taps["neck"].features, learnt.taps["neck"].features
    code, other_code, wide, narrow = twin.maps(one, other)
    cells = object_cells_of(taught.taps["neck"])
    assert sum(map(len, cells)) == 6
    at_objects = slow.squared_at_objects(wide, one, cells, 20) + slow.squared_at_objects(narrow, other, cells, 20)
    terms = method(taught, learnt, BATCH).terms
    assert list(terms) == ["itkd/interchange", "itkd/compressed"]
    assert terms["itkd/interchange"].item() == pytest.approx(3.0 * (twin(one, other)[0].item() + at_objects), rel=1e-5)
    assert terms["itkd/compressed"].item() == pytest.approx(1.5 * (code - other_code).abs().mean().item(), rel=1e-5)


def test_paper_terms_have_the_mask_on_the_codes():
    taught, learnt = pair()
    method = build(ItkdConfig(variant="paper", attention_weight=0.0, **SMALL))
    twin = slow.Straightforward(method.autoencoder)
    one, other = taught.taps["neck"].features, learnt.taps["neck"].features
    code, other_code, _, _ = twin.maps(one, other)
    apart = [
        (code - other_code)[frame, :, row, column].abs().mean()
        for frame, places in enumerate(object_cells_of(taught.taps["neck"]))
        for row, column in places
    ]
    terms = method(taught, learnt, BATCH).terms
    assert terms["itkd/interchange"].item() == pytest.approx(twin(one, other)[0].item(), rel=1e-5)
    assert terms["itkd/compressed"].item() == pytest.approx(torch.stack(apart).mean().item(), rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_fixed_target_gives_the_students_map_no_gradient_from_the_teachers_code(variant, fixed):
    taught, learnt = pair()
    method = build(only("interchange", variant=variant, detach_target=fixed))
    with torch.no_grad():
        method.autoencoder.widening.weight.zero_()  # nothing of the student's map gets into its own code
    method(taught, learnt, BATCH).total.backward()
    gradient = learnt.taps["neck"].features.grad
    assert bool(gradient.abs().sum() > 0) is not fixed


def test_without_objects_only_their_part_is_missing():
    taught, learnt = pair()
    empty = replace(BATCH, boxes=(Boxes.empty(),) * BATCH.size)
    method = build(ItkdConfig(**SMALL))
    losses = method(taught, learnt, empty)
    plain = slow.Straightforward(method.autoencoder)(taught.taps["neck"].features, learnt.taps["neck"].features)
    assert losses.terms["itkd/interchange"].item() == pytest.approx(plain[0].item(), rel=1e-5)
    assert losses.terms["itkd/attention"].item() == 0
    assert losses.logs["itkd/objects"].item() == 0
    assert build(only("compressed", variant="paper"))(taught, learnt, empty).total.item() == 0


def test_a_coarser_student_is_read_at_the_teachers_cells():
    ramp = torch.arange(6) * 1.0 + 0.5  # the x of each coarse cell
    learnt = FeatureMap.at(ramp.expand(2, 4, 8, 6).contiguous(), fakes.ORIGIN, (1.0, 1.0))
    fine = FeatureMap.at(
        (torch.arange(12) * 0.5 + 0.25).clamp(0.5, 5.5).expand(2, 4, 16, 12).contiguous(), fakes.ORIGIN, fakes.CELL
    )
    taught = FeatureMap.at(torch.randn(2, 6, 16, 12), fakes.ORIGIN, fakes.CELL)
    specs = {"neck": MapSpec(6)}, {"neck": MapSpec(4)}
    method = ItkdConfig(attention_weight=0.0, **SMALL).build(*specs)
    values = [
        method(DetectorOutput({"neck": taught}, ()), DetectorOutput({"neck": own}, ()), BATCH).total
        for own in (learnt, fine)
    ]
    torch.testing.assert_close(*values)


# Attention


def test_hand_counted_attention():
    one = channel_attention(torch.tensor([[[1.0, 2.0]]]), 1)
    torch.testing.assert_close(one, torch.tensor([[[1.7311, 1.8808]]]), atol=1e-4, rtol=0)
    two = channel_attention(torch.tensor([[[1.0, 2.0], [3.0, 0.0]]]), 2)
    torch.testing.assert_close(two, torch.tensor([[[1.00348, 1.80443], [2.98956, 0.58671]]]), atol=1e-4, rtol=0)


def test_rows_of_padding_change_nothing():
    objects = torch.randn(2, 3, 5)
    padded = channel_attention(torch.nn.functional.pad(objects, (0, 0, 0, 4)), 20)
    torch.testing.assert_close(padded[:, :3], channel_attention(objects, 20))
    assert (padded[:, 3:] == 0).all()


def test_rows_find_their_frame():
    places = ObjectRows(torch.tensor([0, 0, 2]), torch.tensor([4, 4, 9]), torch.tensor([0, 1, 0]))
    vectors = torch.arange(6.0).view(3, 2)
    assert by_frame(vectors, places, 3).tolist() == [[[0, 1], [2, 3]], [[0, 0], [0, 0]], [[4, 5], [0, 0]]]


def frames_of(head, places, squash):
    vectors = head.vectors(places).detach().double()
    if squash:
        vectors[:, : len(head.classes)] = vectors[:, : len(head.classes)].sigmoid()
    return [vectors[places.frames == frame].tolist() for frame in range(BATCH.size)]


@pytest.mark.parametrize("heatmap", ["sigmoid", "logits"])
@pytest.mark.parametrize("kind", ["anchor", "center"])
def test_attention_equals_the_slow_form(kind, heatmap):
    taught, learnt = pair(kind)
    method = build(only("attention", heatmap=heatmap), kind)
    one, other = taught.heads[0], learnt.heads[0]
    places = one.positives(BATCH.boxes)
    assert len(places) >= 6
    parts = [3, 3, 3, 1, 2] if kind == "anchor" else [3, 2, 1, 3, 2]
    assert list(one.channel_groups) == parts
    squash = heatmap == "sigmoid"
    fusion = method.attention.fusion[str(sum(parts))].weight.detach()
    expected = slow.attention_loss(frames_of(one, places, squash), frames_of(other, places, squash), parts, fusion, 20)
    losses = method(taught, learnt, BATCH)
    assert losses.total.item() == pytest.approx(expected, rel=1e-5)
    assert losses.logs["itkd/fusion_norm"].item() == pytest.approx(fusion.norm().item(), rel=1e-5)
    assert losses.logs["itkd/objects"].item() == 3


@pytest.mark.parametrize("kind", ["anchor", "center"])
def test_equal_heads_have_nothing_to_learn(kind):
    taught, learnt = pair(kind)
    assert build(only("attention"), kind)(taught, DetectorOutput(learnt.taps, taught.heads), BATCH).total.item() == 0


def test_the_mean_over_tasks_is_taken_and_each_task_sees_its_own_objects():
    tasks = [(0,), (1, 2)]
    heads = [[centre_head(10 * side + row, classes) for row, classes in enumerate(tasks)] for side in range(2)]
    method, forward = with_heads(*heads)
    assert sorted(method.attention.fusion) == ["10", "9"]
    expected = []
    for one, other in zip(*heads, strict=True):
        places = one.positives(BATCH.boxes)
        assert set(
            torch.cat(
                [BATCH.boxes[f].labels[n][None] for f, n in zip(places.frames, places.objects, strict=True)]
            ).tolist()
        ) <= set(one.classes)
        fusion = method.attention.fusion[str(one.object_width)].weight.detach()
        expected.append(
            slow.attention_loss(
                frames_of(one, places, True), frames_of(other, places, True), one.channel_groups, fusion, 20
            )
        )
    assert forward().total.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert min(expected) > 0


def test_tasks_of_one_width_share_their_fusion_and_velocity_widens_it():
    heads, others = ([centre_head(row + shift, (row,), velocity=True) for row in range(3)] for shift in (0, 5))
    method, forward = with_heads(heads, others)
    assert [tuple(parameter.shape) for parameter in method.parameters()] == [(11, 22)]
    assert heads[0].channel_groups == (1, 2, 1, 3, 2, 2)
    forward().total.backward()
    seen = torch.cat([boxes.labels for boxes in BATCH.boxes]).unique().tolist()
    assert [row for row, head in enumerate(others) if head.maps["velocity"].grad.abs().sum() > 0] == seen
    assert all(values.grad is None for head in heads for values in head.maps.values())


def test_centre_heads_on_two_grids_are_compared_object_by_object():
    fine, coarse = centre_head(1, (0, 1, 2)), centre_head(2, (0, 1, 2), grid=MapGrid(fakes.ORIGIN, (1.0, 1.0), (6, 8)))
    method, forward = with_heads([fine], [coarse])
    fusion = method.attention.fusion["11"].weight.detach()
    places = [head.positives(BATCH.boxes) for head in (fine, coarse)]
    expected = slow.attention_loss(
        frames_of(fine, places[0], True), frames_of(coarse, places[1], True), fine.channel_groups, fusion, 20
    )
    assert forward().total.item() == pytest.approx(expected, rel=1e-5)


def test_objects_on_one_map_only_are_left_out():
    whole, half = (
        centre_head(1, (0, 1, 2)),
        centre_head(2, (0, 1, 2), grid=replace(fakes.GRID, size=(12, 8))),
    )  # the half with y < 0
    _, forward = with_heads([whole], [half])
    kept = replace(BATCH, boxes=tuple(boxes[boxes.geometry[:, 1] < 0] for boxes in BATCH.boxes))
    assert 0 < sum(map(len, kept.boxes)) < sum(map(len, BATCH.boxes))
    torch.testing.assert_close(forward().total, forward(kept).total)


def test_more_objects_than_places_are_capped():
    geometry = torch.tensor([[2.6, 0.3, 0.0, 1.6, 0.9, 1.5, 0.0]]).repeat(700, 1)
    many = replace(BATCH, boxes=(Boxes(geometry, torch.zeros(700).long()),) * BATCH.size)
    few = replace(many, boxes=tuple(boxes[:20] for boxes in many.boxes))
    for kind in ("anchor", "center"):
        taught, learnt = pair(kind)
        method = build(ItkdConfig(**SMALL), kind)
        capped, plain = method(taught, learnt, many), method(taught, learnt, few)
        assert capped.logs["itkd/objects"].item() == 20
        torch.testing.assert_close(capped.total, plain.total)


# Settings


def test_parts_without_weight_have_no_layer_and_no_term():
    kinds = {part: build(only(part)) for part in ("interchange", "compressed", "attention")}
    names = {part: {name.split(".")[1] for name, _ in method.named_parameters()} for part, method in kinds.items()}
    assert names == {
        "interchange": {"widening", "encoder", "decoder"},
        "compressed": {"widening", "encoder"},
        "attention": {"fusion"},
    }
    for part, method in kinds.items():
        assert list(method(*pair(), BATCH).terms) == [f"itkd/{part}"]


def test_the_number_of_layers_is_that_of_the_published_student():
    specs = {"neck": MapSpec(384), "head.0": HeadSpec(11, CenterHeadOutput)}
    method = ItkdConfig().build(specs, {**specs, "neck": MapSpec(96)})
    counts = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in method.autoencoder.named_children()
        if part is not None
    }
    assert counts == {
        "widening": 97 * 384,
        "encoder": 385 * 128 + 129 * 64 + 65 * 32,
        "decoder": 33 * 64 + 65 * 128 + 129 * 96,
    }
    assert sum(p.numel() for p in method.attention.parameters()) == 11 * 22


def test_a_weight_of_zero_gives_zeros():
    losses = build(ItkdConfig(weight=0.0, **SMALL))(*pair(), BATCH)
    assert [value.item() for value in losses.terms.values()] == [0.0] * 3
    losses.total.backward()


def test_fusion_is_kept_from_decay_except_in_the_released_form():
    assert build(ItkdConfig(**SMALL)).no_decay() == frozenset()
    assert build(ItkdConfig(variant="paper", **SMALL)).no_decay() == {"attention.fusion.12.weight"}


def test_the_mean_of_nothing_is_zero():
    assert mean_or_zero(torch.zeros(0, 3)).item() == 0
    assert mean_or_zero(torch.tensor([1.0, 2.0])).item() == 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "both"}, "itkd.variant is 'both'; use one of paper, released"),
        ({"heatmap": "raw"}, "itkd.heatmap is 'raw'; use one of sigmoid, logits"),
        ({"attention_weight": -1.0}, "itkd.attention_weight is -1.0; give 0 or more"),
        ({"interchange_weight": 0, "compressed_weight": 0, "attention_weight": 0}, "itkd: every part has weight 0"),
        ({"widths": ()}, r"itkd.widths is \(\); give"),
        ({"widths": (8, 0)}, r"itkd.widths.1 is 0; give 1 or more"),
        ({"max_objects": 0}, "itkd.max_objects is 0; give"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ItkdConfig(**settings)


def test_networks_without_what_it_needs_are_refused():
    neck = {"neck": MapSpec(4)}
    with pytest.raises(InputError, match="itkd needs the tap 'neck'; the student offers 'points'"):
        ItkdConfig().build(neck, {"points": SetSpec(4)})
    with pytest.raises(
        InputError, match="itkd: the teacher has no detection head to attend to; set itkd.attention_weight=0"
    ):
        ItkdConfig().build(neck, neck)
    with pytest.raises(InputError, match="itkd compares predictions, and the student has no detection head"):
        ItkdConfig().build({**neck, "head.0": HeadSpec(12, CenterHeadOutput)}, neck)
    assert ItkdConfig(attention_weight=0.0).build(neck, neck).attention is None


def test_heads_that_do_not_fit_are_refused():
    taught, learnt = pair()
    method = build(only("attention"))
    with pytest.raises(InputError, match="the teacher has 1 heads and the student 0"):
        method(taught, DetectorOutput(learnt.taps, ()), BATCH)
    with pytest.raises(InputError, match=r"a head of kind 'anchor' cannot be compared with one of kind 'center'"):
        method(taught, DetectorOutput(learnt.taps, fakes.output(4, BATCH, 2, kind="center").heads), BATCH)
    coarse = replace(
        learnt.heads[0], maps={name: values[..., ::2, ::2] for name, values in learnt.heads[0].maps.items()}
    )
    with pytest.raises(
        InputError, match="itkd: the head map 'class' is 18x16x12 in the teacher and 18x8x6 in the student"
    ):
        method(taught, DetectorOutput(learnt.taps, (coarse,)), BATCH)


# The authors' numbers


@pytest.fixture(scope="module")
def golden(reference):
    with np.load(reference("distillation", "itkd_small.npz"), allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def as_output(features, head):
    split = head.split([3, 2, 1, 3, 2], dim=1)
    maps = dict(zip(("heatmap", "offset", "height", "size", "rotation"), split, strict=True))
    grid = MapGrid((0.0, 0.0), (1.0, 1.0), (features.shape[3], features.shape[2]))
    return DetectorOutput(
        {"neck": FeatureMap(features, grid)},
        (CenterHeadOutput((0, 1, 2), maps, grid),),
    )


def test_values_and_gradients_equal_the_released_codes(golden):
    frames = []
    for index, mask in zip(golden["ind"], golden["mask"].bool(), strict=True):
        geometry = torch.ones(int(mask.sum()), 7)
        geometry[:, 0], geometry[:, 1] = index[mask] % 16 + 0.5, index[mask] // 16 + 0.5
        frames.append(Boxes(geometry, torch.zeros(len(geometry)).long()))
    batch = replace(BATCH, boxes=tuple(frames))
    specs = {"head.0": HeadSpec(11, CenterHeadOutput)}
    config = ItkdConfig(heatmap="logits", max_objects=golden["mask"].shape[1])
    method = config.build({**specs, "neck": MapSpec(48)}, {**specs, "neck": MapSpec(12)})
    names = (
        {"widening": "us_student"}
        | {f"encoder.{i}": f"downsample.{2 * i}" for i in range(3)}
        | {f"decoder.{i}": f"upsample.{2 * i}" for i in range(3)}
    )
    stored = {
        f"autoencoder.{own}.{kind}": f"tse.{theirs}.{kind}"
        for own, theirs in names.items()
        for kind in ("weight", "bias")
    }
    stored["attention.fusion.11.weight"] = "attn.attn_weight.weight"
    method.load_state_dict({own: golden[theirs].view_as(method.get_parameter(own)) for own, theirs in stored.items()})

    features, head = golden["student_feature"].clone().requires_grad_(), golden["student_head"].clone().requires_grad_()
    terms = method(as_output(golden["teacher_feature"], golden["teacher_head"]), as_output(features, head), batch).terms
    parts = {
        name: golden[f"part.{name}_to_{end}"].item()
        for name, end in (("l1_student", "teacher"), ("l1_teacher", "student"))
    }
    objects = golden["part.ss_student_to_teacher"].item() + golden["part.ss_teacher_to_student"].item()
    assert terms["itkd/interchange"].item() == pytest.approx(sum(parts.values()) + objects, rel=1e-4)
    assert terms["itkd/compressed"].item() == pytest.approx(golden["part.l1_code"].item(), rel=1e-4)
    assert terms["itkd/attention"].item() == pytest.approx(golden["loss.attention"].item(), rel=1e-4)
    both = terms["itkd/interchange"] + terms["itkd/compressed"]
    assert both.item() == pytest.approx(golden["loss.tse_total"].item(), rel=1e-4)

    (both + terms["itkd/attention"]).backward()
    close = {"rtol": 1e-4, "atol": 1e-7}
    torch.testing.assert_close(features.grad, golden["grad_student.tse"], **close)
    torch.testing.assert_close(head.grad, golden["grad_head.attention"], rtol=1e-4, atol=1e-5)
    for own, theirs in stored.items():
        torch.testing.assert_close(
            method.get_parameter(own).grad,
            golden[f"grad.{theirs}"].view_as(method.get_parameter(own)),
            rtol=1e-4,
            atol=1e-5,
        )
