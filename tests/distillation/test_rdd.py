import math
import warnings
from dataclasses import replace

import pytest
import torch

from lidistill.distillation import rdd as module
from lidistill.distillation.head_comparison import HeadComparison, pair_differences
from lidistill.distillation.proposals import ProposalSettings, find_proposals
from lidistill.distillation.rdd import RddConfig, Widening
from lidistill.ops.box_codes import decode_anchors, encode_anchors
from lidistill.outputs import AnchorHeadOutput, Anchors, DetectorOutput, FeatureMap, ObjectRows
from lidistill.types import InputError
from tests.distillation import fakes
from tests.reference import rdd as slow

BATCH = fakes.make_batch()
FEW = ProposalSettings(max_proposals=3)
KINDS = ["anchor", "center"]


def outputs(kind="anchor", widths=(8, 5), requires_grad=False):
    return fakes.output(widths[0], BATCH, 1, kind=kind), fakes.output(
        widths[1], BATCH, 2, kind=kind, requires_grad=requires_grad
    )


def build(widths=(8, 5), **settings):
    torch.manual_seed(0)
    return RddConfig(**{"proposals": FEW, "lambda_value": 0.2, **settings}).build(
        fakes.specs(widths[0]), fakes.specs(widths[1])
    )


def silent(output):
    """The same network, sure that there is nothing."""
    head = output.heads[0]
    name = next(iter(head.parts))
    return DetectorOutput(
        output.taps, (replace(head, maps={**head.maps, name: torch.full_like(head.maps[name], -9.0)}),)
    )


def with_neck(output, neck):
    return DetectorOutput({**output.taps, "neck": neck}, output.heads)


def slow_layer(method):
    layer = method.widening
    return layer.convolution.weight, layer.norm_scale, layer.norm_shift


# Features


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("order", "softmax"), [("align", "channel"), ("align", "spatial"), ("literal", "channel")])
def test_the_feature_loss_is_that_of_the_straightforward_form(kind, order, softmax):
    taught, learnt = outputs(kind, requires_grad=True)
    method = build(order=order, softmax=softmax)
    torch.nn.init.uniform_(method.widening.norm_scale, 0.5, 2.0)
    torch.nn.init.normal_(method.widening.norm_shift)
    pairs, _ = method.pairs(taught, learnt)
    regions = fakes.GRID.in_cells(pairs.regions)
    maps = [output.taps["neck"].features for output in (taught, learnt)]
    soft = slow.crops(
        *maps, (regions, regions), pairs.frames, slow_layer(method), 4.0, order, 1 if softmax == "channel" else 2
    )
    least = (soft[0] - soft[1]).flatten(1).norm(dim=1).median().item() * 1.001  # some are above
    value, share = slow.feature_loss(*soft, least)
    assert 0 < share < 1

    method.config = replace(method.config, lambda_value=least)
    losses = method(taught, learnt, BATCH)
    torch.testing.assert_close(losses.terms["rdd/feature"], 0.2 * value)
    assert losses.logs["rdd/selected_share"].item() == pytest.approx(share.item())
    assert losses.logs["rdd/pairs"].item() == len(pairs)
    parameters = (learnt.taps["neck"].features, *method.parameters())
    own = torch.autograd.grad(losses.terms["rdd/feature"], parameters)
    for gradient, expected in zip(own, torch.autograd.grad(0.2 * value, parameters), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)


def test_maps_of_other_grids_are_cropped_at_the_same_place_in_metres():
    taught, learnt = outputs()
    coarse = FeatureMap.at(torch.randn(2, 15, 10, 8), (-0.5, -4.25), (0.875, 0.85))
    method = build()
    pairs, _ = method.pairs(taught, learnt)
    regions = tuple(tap.grid.in_cells(pairs.regions) for tap in (taught.taps["neck"], coarse))
    expected = slow.crops(taught.taps["neck"].features, coarse.features, regions, pairs.frames, slow_layer(method), 4.0)
    found = method.crops(taught.taps["neck"], coarse, pairs)
    for crop, wanted in zip(found, expected, strict=True):
        assert crop.shape == (len(pairs), 49, 24)
        torch.testing.assert_close(crop, wanted.flatten(2).transpose(1, 2))
        torch.testing.assert_close(crop.sum(dim=2), torch.ones(len(pairs), 49))
    assert method(taught, with_neck(learnt, coarse), BATCH).total > 0


def test_widening_normalises_as_if_the_whole_population_were_widened():
    population = torch.randn(300, 6, dtype=torch.float64, requires_grad=True)
    layer = Widening(6, 9).double()
    everything = torch.nn.functional.batch_norm(
        layer.convolution(population), None, None, layer.norm_scale, layer.norm_shift, training=True
    ).relu()
    chosen = torch.tensor([3, 250, 17])
    torch.testing.assert_close(layer(population[chosen], population), everything[chosen])
    small = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: layer(rows[:4], rows), (small,))


def test_regions_take_their_statistics_from_the_touched_cells():
    taught, learnt = outputs()
    changed = learnt.taps["neck"].features.clone()
    method, by_map = build(align_on="regions"), build()
    pairs, _ = method.pairs(taught, learnt)
    touched = learnt.taps["neck"].region_reading(pairs.regions, pairs.frames, method.config.crop).cells
    untouched = torch.ones(2 * 16 * 12, dtype=torch.bool).index_fill(0, touched, False)
    assert untouched.any()
    rows = changed.permute(0, 2, 3, 1).reshape(-1, 15)
    rows[untouched] += 5
    other = with_neck(learnt, replace(learnt.taps["neck"], features=rows.view(2, 16, 12, 15).permute(0, 3, 1, 2)))
    assert torch.equal(
        method(taught, learnt, BATCH).terms["rdd/feature"], method(taught, other, BATCH).terms["rdd/feature"]
    )
    assert not torch.equal(
        by_map(taught, learnt, BATCH).terms["rdd/feature"], by_map(taught, other, BATCH).terms["rdd/feature"]
    )


# Pairs and masks


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_the_proposals_of_both_networks(kind):
    taught, learnt = outputs(kind)
    pairs, num_taught = build().pairs(taught, learnt)
    own = [find_proposals(output.heads, FEW) for output in (taught, learnt)]
    assert num_taught == len(own[0])
    assert torch.equal(pairs.rows, torch.cat([found.rows for found in own]))


def test_few_pairs_are_joined_by_less_certain_ones():
    taught, learnt = outputs("center")
    heat = torch.full_like(taught.heads[0].maps["heatmap"], -9.0)
    for place, score in {(0, 0, 2, 2): 0.8, (0, 1, 9, 9): 0.2, (1, 0, 5, 5): 0.05}.items():
        heat[place] = math.log(score / (1 - score))
    taught = DetectorOutput(taught.taps, (replace(taught.heads[0], maps={**taught.heads[0].maps, "heatmap": heat}),))
    assert [round(score, 3) for score in build(fallback_pairs=2).pairs(taught, silent(learnt))[0].scores.tolist()] == [
        0.8,
        0.2,
    ]
    assert len(build(fallback_pairs=1).pairs(taught, silent(learnt))[0]) == 1
    assert len(build(fallback_threshold=0.01).pairs(taught, silent(learnt))[0]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_exchanging_the_networks_leaves_the_pairs_and_their_logit_loss_equal(kind):
    taught, learnt = outputs(kind, (8, 8))
    how = HeadComparison("rdd")
    pairs, count = build().pairs(taught, learnt)
    swapped, other_count = build().pairs(learnt, taught)
    assert count + other_count == len(pairs)
    assert torch.equal(torch.cat([swapped.rows[other_count:], swapped.rows[:other_count]]), pairs.rows)
    one, other = (
        pair_differences(taught.heads, learnt.heads, pairs, count, how).mean(),
        pair_differences(learnt.heads, taught.heads, swapped, other_count, how).mean(),
    )
    torch.testing.assert_close(one, other)


def test_lambda_of_zero_selects_every_pair_and_a_large_one_none_with_finite_gradients():
    taught, learnt = outputs(requires_grad=True)
    everything = build(lambda_value=0.0)(taught, learnt, BATCH)
    assert everything.logs["rdd/selected_share"].item() == 1
    assert everything.terms["rdd/feature"].item() == pytest.approx(0.2 * everything.logs["rdd/disparity"].item())
    method = build(lambda_value=1e9)
    none = method(taught, learnt, BATCH)
    assert [term.item() for term in none.terms.values()] == [0, 0]
    none.total.backward()
    for tensor in (*method.parameters(), learnt.taps["neck"].features, learnt.heads[0].maps["class"]):
        assert tensor.grad.abs().max() == 0


@pytest.mark.parametrize("disparity", ["norm", "gaussian_mi"])
@pytest.mark.parametrize("mask", ["hard", "soft", "topk", "gd"])
def test_every_mask_lies_between_zero_and_one_and_takes_no_gradient(mask, disparity):
    taught, learnt = outputs(requires_grad=True)
    method = build(mask=mask, disparity=disparity, lambda_mode="quantile", lambda_value=0.3)
    pairs, _ = method.pairs(taught, learnt)
    crops = method.crops(taught.taps["neck"], learnt.taps["neck"], pairs)
    values, selected = method.select((crops[0] - crops[1]).flatten(1).norm(dim=1), crops)
    assert not selected.requires_grad
    assert not values.requires_grad
    assert 0 < selected.mean() <= 1
    assert ((selected >= 0) & (selected <= 1)).all()
    if mask in ("hard", "topk"):
        assert values[selected == 1].min() > values[selected == 0].max()


def test_no_proposal_gives_exact_zeros_that_belong_to_the_graph():
    taught, learnt = outputs(requires_grad=True)
    method = build()
    losses = method(silent(taught), silent(learnt), BATCH)
    assert {name: term.item() for name, term in losses.terms.items()} == {"rdd/feature": 0, "rdd/logit": 0}
    assert losses.logs["rdd/pairs"].item() == 0
    losses.total.backward()
    assert all(parameter.grad.abs().max() == 0 for parameter in method.parameters())


# Heads


def two_heads(boxes="deltas", shift=0.0):
    """Anchor heads of two frames with one cell that both see, and proposals at two of its anchors."""
    taught, learnt = outputs(requires_grad=True)
    pairs = find_proposals(taught.heads, FEW)
    moved = replace(
        learnt.heads[0].anchors, boxes=learnt.heads[0].anchors.boxes + torch.tensor([shift, 0, 0, 0, 0, 0, 0])
    )
    learnt = DetectorOutput(learnt.taps, (replace(learnt.heads[0], anchors=moved),))
    return (
        taught,
        learnt,
        pairs,
        pair_differences(taught.heads, learnt.heads, pairs, len(pairs), HeadComparison("rdd", boxes)),
    )


def expected_anchor_difference(taught, learnt, frame, row, boxes):
    """One pair, one number after the other."""
    cell, slot = divmod(row, 6)
    y, x = divmod(cell, 12)
    one, other = taught.heads[0], learnt.heads[0]

    def numbers(head, name, width):
        return head.maps[name][frame, slot * width : (slot + 1) * width, y, x].tolist()

    total = sum(
        abs(1 / (1 + math.exp(-a)) - 1 / (1 + math.exp(-b)))
        for a, b in zip(numbers(one, "class", 3), numbers(other, "class", 3), strict=True)
    )
    codes = [torch.tensor([numbers(head, "box", 7)]) for head in (one, other)]
    anchors = [head.anchors.boxes[row : row + 1] for head in (one, other)]
    decoded = [decode_anchors(*pair) for pair in zip(codes, anchors, strict=True)]
    if boxes == "deltas":
        decoded = [encode_anchors(box, anchors[0]) for box in decoded]
    difference = (decoded[0] - decoded[1])[0].tolist()
    return total + sum(map(abs, difference[:6])) + abs(math.sin(difference[6]))


@pytest.mark.parametrize("boxes", ["deltas", "decoded"])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_anchor_heads_are_compared_at_the_proposed_anchor(boxes, shift):
    taught, learnt, pairs, found = two_heads(boxes, shift)
    expected = [
        expected_anchor_difference(taught, learnt, int(p), int(row), boxes)
        for p, row in zip(pairs.frames, pairs.rows, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    found.sum().backward()
    assert learnt.heads[0].maps["box"].grad.abs().sum() > 0


def test_half_a_turn_is_no_difference():
    taught, _ = outputs()
    turned = taught.heads[0].maps["box"].clone()
    turned[:, 6::7] += math.pi
    learnt = DetectorOutput(taught.taps, (replace(taught.heads[0], maps={**taught.heads[0].maps, "box": turned}),))
    pairs = find_proposals(taught.heads, FEW)
    assert pair_differences(taught.heads, learnt.heads, pairs, len(pairs), HeadComparison("rdd")).max() < 1e-5


def same_row(rows, head, other):
    return head.counterparts(other, ObjectRows.at(torch.zeros_like(rows), rows)).rows


def coarser(head):
    """The same head with every second cell, and anchors of its own."""
    maps = {name: values[..., ::2, ::2] for name, values in head.maps.items()}
    boxes = head.anchors.boxes.view(16, 12, -1, 7)[::2, ::2].clone()
    boxes[..., :2] += 0.25
    return AnchorHeadOutput(head.classes, maps, fakes.COARSE, Anchors(boxes.reshape(-1, 7), 2, head.anchors.matched))


def test_the_nearest_cells_anchor_of_the_same_kind_speaks_on_another_grid():
    head = outputs()[0].heads[0]
    fine = torch.tensor([(5 * 12 + 7) * 6 + 4, (15 * 12 + 11) * 6])
    assert same_row(fine, head, coarser(head)).tolist() == [(2 * 6 + 3) * 6 + 4, (7 * 6 + 5) * 6]
    assert torch.equal(same_row(fine, head, head), fine)
    back = same_row(torch.tensor([(2 * 6 + 3) * 6 + 4]), coarser(head), head)
    assert back.item() == (5 * 12 + 7) * 6 + 4


def test_boxes_that_agree_in_metres_differ_by_nothing_on_another_grid():
    taught, _ = outputs()
    other = coarser(taught.heads[0])
    pairs = find_proposals(taught.heads, FEW)
    rows = same_row(pairs.rows, taught.heads[0], other)
    box, logits = other.maps["box"].clone(), other.maps["class"].clone()
    vectors = taught.heads[0].vectors(pairs.at())
    codes = encode_anchors(
        decode_anchors(vectors[:, 3:10], taught.heads[0].anchors.boxes[pairs.rows]), other.anchors.boxes[rows]
    )
    for frame, row, code, scores in zip(pairs.frames.tolist(), rows.tolist(), codes, vectors[:, :3], strict=True):
        cell, slot = divmod(row, 6)
        box[frame, slot * 7 : slot * 7 + 7, cell // 6, cell % 6] = code
        logits[frame, slot * 3 : slot * 3 + 3, cell // 6, cell % 6] = scores
    assert len(set(zip(pairs.frames.tolist(), rows.tolist(), strict=True))) == len(pairs)
    learnt = DetectorOutput({}, (replace(other, maps={**other.maps, "box": box, "class": logits}),))
    for boxes in ("deltas", "decoded"):
        assert (
            pair_differences(taught.heads, learnt.heads, pairs, len(pairs), HeadComparison("rdd", boxes)).max() < 1e-4
        )
    assert other.vectors(ObjectRows(pairs.frames, rows, rows)).shape == vectors.shape


def test_heat_maps_are_compared_over_the_window():
    taught, _ = outputs("center")
    low, high = (torch.full_like(taught.heads[0].maps["heatmap"], value) for value in (0.0, math.log(3)))
    pairs = find_proposals(taught.heads, FEW)
    one, other = (
        DetectorOutput({}, (replace(taught.heads[0], maps={**taught.heads[0].maps, "heatmap": heat}),))
        for heat in (low, high)
    )
    inside = (pairs.regions[:, :2] >= torch.tensor(fakes.ORIGIN)).all(dim=1) & (
        pairs.regions[:, 2:] <= torch.tensor([6.0, 4.0])
    ).all(dim=1)
    pairs = pairs[inside]
    assert len(pairs) > 0
    mean = pair_differences(one.heads, other.heads, pairs, len(pairs), HeadComparison("rdd"))
    torch.testing.assert_close(mean, torch.full_like(mean, 3 * 0.25))
    cells = ((pairs.regions[:, 2] - pairs.regions[:, 0]) / 0.5).round() ** 2
    total = pair_differences(one.heads, other.heads, pairs, len(pairs), HeadComparison("rdd", reduction="sum"))
    torch.testing.assert_close(total, (mean * cells).float())


def test_heat_maps_of_another_grid_are_read_at_the_same_place():
    taught, _ = outputs("center")
    x, y = (torch.arange(n) * 0.5 + 0.25 for n in (12, 16))
    ramp = (x[None, :] - 0.5 * y[:, None]) / 4
    fine = taught.heads[0].maps["heatmap"].new_zeros(2, 3, 16, 12) + ramp
    coarse = (fine[..., ::2, ::2] + fine[..., 1::2, 1::2]) / 2  # exact for what is linear
    pairs = find_proposals(taught.heads, FEW)
    inside = (pairs.regions[:, :2] >= torch.tensor([0.5, -3.5])).all(dim=1) & (
        pairs.regions[:, 2:] <= torch.tensor([5.5, 3.5])
    ).all(dim=1)
    heads = [
        replace(taught.heads[0], maps={**taught.heads[0].maps, "heatmap": heat}, grid=grid)
        for heat, grid in ((fine, fakes.GRID), (coarse, fakes.COARSE))
    ]
    pairs = pairs[inside]
    assert len(pairs) > 0
    # Scores are squashed before they are read, so grids differ by the bend of the sigmoid within a cell.
    assert pair_differences(*((head,) for head in heads), pairs, len(pairs), HeadComparison("rdd")).max() < 0.01


def test_heads_that_cannot_be_compared_are_named():
    taught, learnt = outputs()
    for other, message in [
        (outputs("center")[1], "a head of kind 'anchor' cannot be compared with one of kind 'center'"),
        (DetectorOutput(learnt.taps, learnt.heads * 2), "the teacher has 1 heads and the student 2"),
        (
            DetectorOutput(learnt.taps, (replace(learnt.heads[0], classes=(0, 1, 3)),)),
            r"classes \(0, 1, 2\) and the student's \(0, 1, 3\)",
        ),
    ]:
        with pytest.raises(
            InputError,
            match=message + r".*; build both for one dataset, or compare features only with rdd.logit_weight=0",
        ):
            build()(taught, other, BATCH)
    by_features = build(logit_weight=0.0)(taught, outputs("center")[1], BATCH)
    assert set(by_features.terms) == {"rdd/feature"}
    assert by_features.total > 0


# Behaviour over steps


def repeated(method, given, steps):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(steps):
            method(*given, BATCH)
    return [str(warning.message) for warning in seen]


@pytest.mark.parametrize(
    ("settings", "quiet", "message"),
    [
        ({}, True, "for 3 steps in a row neither network had a score of 0.1; check the teacher's"),
        ({"lambda_value": 50.0}, False, r"for 3 steps in a row no pair was different enough \(mean disparity 0"),
        ({"lambda_value": 1e-9}, False, "for 3 steps in a row every pair was selected"),
    ],
)
def test_it_warns_once_when_nothing_is_chosen_for_long(monkeypatch, settings, quiet, message):
    monkeypatch.setattr(module, "QUIET_STEPS", 3)
    given = tuple(silent(output) if quiet else output for output in outputs(requires_grad=True))
    method = build(**settings)
    assert repeated(method, given, 2) == []
    with pytest.warns(UserWarning, match=message):
        method(*given, BATCH)
    assert repeated(method, given, 4) == []


def test_it_stays_silent_where_all_pairs_are_wanted_or_steps_are_not_training(monkeypatch):
    monkeypatch.setattr(module, "QUIET_STEPS", 3)
    given = outputs(requires_grad=True)
    assert repeated(build(lambda_value=0.0), given, 4) == []
    assert repeated(build(mask="topk", topk_share=1.0), given, 4) == []
    assert repeated(build(lambda_value=50.0).eval(), given, 4) == []
    method = build(lambda_value=50.0)
    with torch.no_grad():
        assert repeated(method, given, 4) == []


def test_a_step_that_selects_some_starts_the_count_again(monkeypatch):
    monkeypatch.setattr(module, "QUIET_STEPS", 3)
    taught, learnt = outputs(requires_grad=True)
    nothing = (silent(taught), silent(learnt))
    method = build()
    assert repeated(method, nothing, 2) + repeated(method, (taught, learnt), 1) + repeated(method, nothing, 2) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "first"}, "rdd.order is 'first'; use one of align, literal"),
        ({"temperature": 0.0}, "rdd.temperature is 0.0; give 0.001 or more"),
        ({"topk_share": 1.5}, "rdd.topk_share is 1.5; give 1 or less"),
        ({"lambda_mode": "quantile", "lambda_value": 2.0}, "rdd.lambda_value is 2.0; give a share between 0 and 1"),
        (
            {"disparity": "gaussian_mi"},
            "mutual information is never below 0.*use lambda_mode=quantile, mask=topk or mask=gd",
        ),
        ({"order": "literal", "softmax": "spatial"}, "takes it before cropping; use order=align"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        RddConfig(**settings)


def test_rows_that_each_network_places_itself_are_refused():
    with pytest.raises(
        InputError, match="rdd compares place by place, and 'proposals' has rows at places that each network"
    ):
        RddConfig(tap="proposals").build(fakes.point_specs(8), fakes.point_specs(5))
