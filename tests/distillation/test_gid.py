from dataclasses import replace

import pytest
import torch

from lidistill.distillation.gid import GidConfig, disagreement, read_instances, relation_error, response_error
from lidistill.distillation.pairwise_geometry import scaled_distances
from lidistill.distillation.proposals import ProposalSettings, find_proposals
from lidistill.ops.roi import roi_align
from lidistill.outputs import DetectorOutput
from lidistill.types import InputError
from tests.distillation import fakes

BATCH = fakes.make_batch()
KINDS = pytest.mark.parametrize("kind", ["anchor", "center"])


def outputs(kind="anchor"):
    return fakes.output(8, BATCH, 1, kind=kind), fakes.output(5, BATCH, 2, kind=kind)


def forward(taught, learnt, config=None, change=None):
    torch.manual_seed(0)
    method = (config or GidConfig()).build(fakes.specs(8), fakes.specs(taught_width(learnt)))
    if change is not None:
        change(method)
    return method(taught, learnt, BATCH)


def taught_width(output):
    return output.taps["encoder"].features.shape[1]


def quiet(kind):
    """Two equal heads that see nothing, and a place in them: class 1 at anchor 3 (class 1, second rotation) of the cell
    in row 8, column 6.
    """
    key = {"anchor": "class", "center": "heatmap"}[kind]
    taught, _ = outputs(kind)
    head = taught.heads[0]
    maps = {name: torch.zeros_like(values) for name, values in head.maps.items()} | {
        key: torch.full_like(head.maps[key], -5.0)
    }
    channel = 3 * 3 + 1 if kind == "anchor" else 1
    return replace(head, maps=maps), key, (0, channel, 8, 6)


@KINDS
@pytest.mark.parametrize("seen_by", ["teacher", "student"])
def test_an_instance_lies_where_one_network_alone_sees_something(kind, seen_by):
    head, key, place = quiet(kind)
    loud = head.maps[key].clone()
    loud[place] = 3.0
    seeing = replace(head, maps={**head.maps, key: loud})
    moved = "box" if kind == "anchor" else "height"
    codes = head.maps[moved].clone()
    codes[0, 3 * 7 + 2 if kind == "anchor" else 0, 8, 6] = 0.4
    seeing = replace(seeing, maps={**seeing.maps, moved: codes})
    pair = (seeing, head) if seen_by == "teacher" else (head, seeing)
    found = find_proposals((disagreement(*pair),), ProposalSettings(0.01, 10, nms_threshold=0.3))
    assert (found.frames.tolist(), found.labels.tolist()) == ([0], [1])
    assert found.scores.item() == pytest.approx(
        torch.sigmoid(torch.tensor(3.0)).item() - torch.sigmoid(torch.tensor(-5.0)).item(), abs=1e-5
    )
    assert found.rows.item() == (8 * 12 + 6) * (6 if kind == "anchor" else 1) + (3 if kind == "anchor" else 0)
    # The box is that of the network with the higher score.
    z = (
        fakes.anchor_boxes().boxes[0, 2] + 0.4 * fakes.anchor_boxes().boxes[0, 5]
        if kind == "anchor"
        else torch.tensor(0.4)
    )
    assert found.boxes[0, 2].item() == pytest.approx(z.item(), abs=1e-5)


@KINDS
def test_networks_that_agree_have_no_instance_and_nothing_to_learn(kind):
    taught, _ = outputs(kind)
    losses = forward(taught, fakes.output(8, BATCH, 1, kind=kind, requires_grad=True))
    assert losses.logs["gid/instances"].item() == 0
    assert losses.total.item() == 0
    losses.total.backward()


@KINDS
def test_the_terms_follow_their_definitions(kind):
    taught, learnt = outputs(kind)
    losses = forward(taught, learnt)
    pairs = list(zip(taught.heads, learnt.heads, strict=True))
    instances = find_proposals((disagreement(*pairs[0]),), ProposalSettings(0.01, 10, nms_threshold=0.3))
    assert len(instances) == 20
    torch.manual_seed(0)
    adapter = GidConfig().build(fakes.specs(8), fakes.specs(5)).adapter
    neck = taught.taps["neck"]
    regions = neck.grid.in_cells(instances.regions)
    wanted, found = (
        roi_align(output.taps["neck"].features, regions, instances.frames).flatten(2).transpose(1, 2)
        for output in (taught, learnt)
    )
    found = found @ adapter.weight.T + adapter.bias
    squared = (found - wanted).square()
    torch.testing.assert_close(losses.terms["gid/feature"], 5e-4 * squared.sum() / 20)
    other = forward(taught, learnt, GidConfig(feature_reduction="mean", relation_reduction="sum"))
    torch.testing.assert_close(other.terms["gid/feature"], 5e-4 * squared.mean())
    relation = 0.0
    for rows in (slice(0, 10), slice(10, 20)):
        apart = scaled_distances(found[rows].flatten(1)) - scaled_distances(wanted[rows].flatten(1))
        relation = relation + torch.where(apart.abs() < 1, apart.square() / 2, apart.abs() - 0.5).sum()
    torch.testing.assert_close(other.terms["gid/relation"], 40 * relation / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.terms["gid/relation"], 40 * relation / 2 / 100, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.terms["gid/response"], response_error(pairs, instances, 2))


def test_hand_counted_response_at_one_cell():
    head, key, place = quiet("center")
    maps = {name: values.clone() for name, values in head.maps.items()}
    maps[key][place], maps["height"][0, 0, 8, 6] = 2.0, 1.0
    seeing = replace(head, maps=maps)
    instances = find_proposals((disagreement(seeing, head),), ProposalSettings(0.01, 10))
    p, q = torch.sigmoid(torch.tensor([2.0, -5.0], dtype=torch.float64)).tolist()
    divergence = p * torch.tensor(p / q).log() + (1 - p) * torch.tensor((1 - p) / (1 - q)).log()
    assert response_error([(seeing, head)], instances, 2).item() == pytest.approx(
        divergence.item() + 1 - 1 / 18, rel=1e-4
    )


def test_a_yaw_counts_by_the_sine_of_its_difference():
    head, _, place = quiet("anchor")
    loud = head.maps["class"].clone()
    loud[place] = 3.0
    seeing = replace(head, maps={**head.maps, "class": loud})
    turned = replace(seeing, maps={**seeing.maps, "box": seeing.maps["box"].clone()})
    turned.maps["box"][:, 6::7] = torch.pi
    instances = find_proposals((seeing,), ProposalSettings())
    assert len(instances) == 1
    assert response_error([(seeing, turned)], instances, 2).item() == pytest.approx(0, abs=1e-9)
    turned.maps["box"][:, 6::7] = torch.pi / 2
    assert response_error([(seeing, turned)], instances, 2).item() == pytest.approx(1 - 1 / 18, rel=1e-5)


def test_relations_are_taught_within_a_frame():
    taught, learnt = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    frames = torch.tensor([0, 0, 0, 2, 2])
    parts = relation_error(taught[:3], learnt[:3], frames[:3]) + relation_error(taught[3:], learnt[3:], frames[3:])
    torch.testing.assert_close(relation_error(taught, learnt, frames), parts)
    assert relation_error(taught[:0], learnt[:0], frames[:0]).item() == 0


def test_each_network_is_read_in_metres_on_its_own_map():
    taught, learnt = outputs()
    instances = find_proposals(taught.heads, ProposalSettings(max_proposals=3))
    ramps = []
    for output, tap in ((taught, "neck"), (learnt, "bev.1")):
        like = output.taps[tap]
        x = like.grid.centres()[0, :, 0]
        ramps.append(read_instances(replace(like, features=x.expand(2, 1, *like.features.shape[2:])), instances, 3))
    inside = ((instances.regions[:, 0] > 1) & (instances.regions[:, 2] < 5)).nonzero()[:, 0]
    assert len(inside)
    torch.testing.assert_close(ramps[0][inside], ramps[1][inside])


def test_half_a_method_has_half_the_terms_and_layers():
    only_features, only_response = GidConfig(response_weight=0.0), GidConfig(feature_weight=0.0, relation_weight=0.0)
    assert set(forward(*outputs(), only_features).terms) == {"gid/feature", "gid/relation"}
    assert set(forward(*outputs(), only_response).terms) == {"gid/response"}
    assert not list(only_response.build(fakes.specs(8), fakes.specs(5)).parameters())


def test_heads_that_differ_and_bad_settings_are_refused():
    taught, learnt = outputs()
    smaller = replace(learnt.heads[0], maps={name: values[..., ::2] for name, values in learnt.heads[0].maps.items()})
    with pytest.raises(
        InputError, match="gid: the head map 'class' is 18x16x12 in the teacher and 18x16x6 in the student; give"
    ):
        forward(taught, DetectorOutput(learnt.taps, (smaller,)))
    with pytest.raises(InputError, match="the teacher has 1 heads and the student 0; build both for one dataset"):
        forward(taught, DetectorOutput(learnt.taps, ()))
    with pytest.raises(InputError, match="gid: all of its weights are 0; leave one"):
        GidConfig(feature_weight=0.0, relation_weight=0.0, response_weight=0.0)
    with pytest.raises(InputError, match="gid.feature_reduction is 'max'; use one of sum, mean"):
        GidConfig(feature_reduction="max")
    with pytest.raises(InputError, match="gid.nms_threshold is 2; give 1 or less"):
        GidConfig(nms_threshold=2)
