from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.distillation import pointdistiller
from lidistill.distillation.important_rows import nearest_rows, select_queries
from lidistill.distillation.pointdistiller import PUBLISHED, PointDistillerConfig
from lidistill.ops.kernels.graph_distance import EdgeTerms
from lidistill.outputs import DetectorOutput, FeatureMap, FeatureSet, MapSpec, SetSpec
from lidistill.types import Batch, Boxes, InputError
from tests.distillation import fakes
from tests.reference import pointdistiller as slow

SEEDS = [f"0/frame-{i}" for i in range(9)]


def make_batch(num_frames):
    names = tuple(f"frame-{i}" for i in range(num_frames))
    return Batch(names, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), (Boxes.empty(),) * num_frames)


def as_set(features, groups=None, occupancy=None):
    groups = torch.zeros(len(features), dtype=torch.long) if groups is None else groups
    return FeatureSet(features, groups, torch.zeros(len(features), 3), occupancy)


def run(config, taught, learnt, num_frames=1):
    """One forward pass on taps given as {name: FeatureSet or FeatureMap}; the method and its losses."""

    def specs(taps):
        return {
            name: (MapSpec if isinstance(tap, FeatureMap) else SetSpec)(tap.features.shape[1])
            for name, tap in taps.items()
        }

    method = config.build(specs(taught), specs(learnt))
    return method, lambda: method(DetectorOutput(taught, ()), DetectorOutput(learnt, ()), make_batch(num_frames))


# Hand values


def test_a_constant_difference_gives_two_squares_for_any_weights(monkeypatch):
    monkeypatch.setattr(pointdistiller.EdgeEncoder, "forward", lambda self, rows, graphs: constant_terms(rows, graphs))

    def constant_terms(rows, graphs):  # the teacher (4 channels) encodes to 1.5, the student to 1.2
        level = 1.5 if rows.shape[1] == 4 else 1.2
        return EdgeTerms(rows.new_zeros(len(rows), 2), rows.new_full((len(graphs), 2), level))

    counts = torch.randint(1, 33, (20,))
    for config in (PointDistillerConfig(), PointDistillerConfig(form="released"), PointDistillerConfig(reweight=False)):
        _, forward = run(
            config,
            {"encoder": as_set(torch.randn(20, 4), occupancy=counts)},
            {"encoder": as_set(torch.randn(20, 3).requires_grad_())},
        )
        assert forward().total.item() == pytest.approx(2 * 0.3**2, rel=1e-4)


# The whole loss


@pytest.mark.parametrize("edge", ["concat", "residual"])
@pytest.mark.parametrize("pooling", ["none", "max", "avg"])
def test_value_and_gradients_equal_the_obvious_form(edge, pooling):
    groups = torch.arange(3).repeat_interleave(torch.tensor([14, 3, 20]))
    counts = torch.randint(1, 33, (37,))
    taught, learnt = torch.randn(37, 6), torch.randn(37, 4).requires_grad_()
    config = PointDistillerConfig(num_queries=8, num_neighbours=5, temperature=4.0, edge=edge, pooling=pooling)
    method, forward = run(config, {"encoder": as_set(taught, groups, counts)}, {"encoder": as_set(learnt, groups)}, 3)
    value = forward().terms["pointdistiller/encoder"]
    encoders = method.teacher_encoders[0], method.student_encoders[0]
    twin = learnt.detach().clone().requires_grad_()
    expected = slow.loss(taught, twin, counts.float(), groups, encoders, 8, 5, 4.0, edge, pooling)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    value.backward()
    expected.backward()
    torch.testing.assert_close(learnt.grad, twin.grad, rtol=1e-3, atol=1e-5)


def test_frames_do_not_depend_on_their_order_nor_share_edges():
    sizes = torch.tensor([12, 9])
    taught, learnt, counts = torch.randn(21, 5), torch.randn(21, 3), torch.randint(1, 33, (21,))
    config = PointDistillerConfig(num_queries=6, num_neighbours=4)
    order = torch.cat([torch.arange(12, 21), torch.arange(12)])
    values = []
    for rows, counted in ((torch.arange(21), sizes), (order, sizes.flip(0))):
        torch.manual_seed(0)
        groups = torch.arange(2).repeat_interleave(counted)
        taps = (
            {"encoder": as_set(taught[rows], groups, counts[rows])},
            {"encoder": as_set(learnt[rows].requires_grad_(), groups)},
        )
        values.append(run(config, *taps, 2)[1]().total.item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_batch_scope_joins_frames():
    groups = torch.tensor([0, 1]).repeat_interleave(10)
    taps = (
        {"encoder": as_set(torch.randn(20, 5), groups, torch.arange(20))},
        {"encoder": as_set(torch.randn(20, 3).requires_grad_(), groups)},
    )
    values = {}
    for scope in ("sample", "batch"):
        torch.manual_seed(0)
        values[scope] = run(PointDistillerConfig(num_queries=5, num_neighbours=4, scope=scope), *taps, 2)[1]()
    assert values["sample"].total.item() != pytest.approx(values["batch"].total.item(), rel=1e-3)
    assert values["batch"].logs["pointdistiller/encoder/effective_graphs"] <= 5


def test_the_weight_scales_the_term():
    taps = (
        {"encoder": as_set(torch.randn(20, 5), occupancy=torch.arange(20))},
        {"encoder": as_set(torch.randn(20, 3).requires_grad_())},
    )
    values = []
    for weight in (1.0, 2.5):
        torch.manual_seed(0)
        values.append(run(PointDistillerConfig(weight=weight), *taps)[1]().total.item())
    assert values[1] == pytest.approx(2.5 * values[0])


def test_equal_features_and_encoders_give_zero_with_a_finite_gradient():
    features = torch.randn(30, 6)
    for config in (PointDistillerConfig(), PointDistillerConfig(form="released", reweight=False)):
        learnt = features.clone().requires_grad_()
        method, forward = run(
            config, {"encoder": as_set(features, occupancy=torch.arange(30))}, {"encoder": as_set(learnt)}
        )
        method.student_encoders.load_state_dict(method.teacher_encoders.state_dict())
        value = forward().total
        assert value.item() <= 1e-12
        value.backward()
        assert learnt.grad.isfinite().all()


def test_logs_tell_a_collapsed_teacher_encoding():
    taps = (
        {"encoder": as_set(torch.randn(30, 6), occupancy=torch.arange(30))},
        {"encoder": as_set(torch.randn(30, 3).requires_grad_())},
    )
    method, forward = run(PointDistillerConfig(), *taps)
    assert forward().logs["pointdistiller/encoder/collapsed_share"] == 0
    torch.nn.init.zeros_(method.teacher_encoders[0].norm_scale)
    logs = forward().logs
    assert logs["pointdistiller/encoder/collapsed_share"] == 1
    assert logs["pointdistiller/encoder/encoded_std"] == pytest.approx(0, abs=1e-6)


def test_maps_on_another_grid_are_compared_place_for_place():
    taught = FeatureMap.at(torch.randn(1, 5, 6, 4), (0.0, 0.0), (1.0, 1.0))
    wide = FeatureMap.at(torch.randn(1, 5, 3, 2).requires_grad_(), (0.0, 0.0), (2.0, 2.0))
    _, forward = run(PointDistillerConfig(num_queries=9, num_neighbours=4), {"neck": taught}, {"neck": wide})
    value = forward().total
    value.backward()
    assert value > 0
    assert wide.features.grad.abs().sum() > 0


# Settings and errors


def test_published_settings_build_on_the_taps_they_name():
    for name, config in PUBLISHED.items():
        taps = {tap: (SetSpec if tap in ("encoder", "points") else MapSpec)(16) for tap in config.taps}
        assert config.form == "released", name
        config.build(taps, {tap: replace(spec, channels=8) for tap, spec in taps.items()})


def test_the_edge_width_is_the_students_unless_it_is_given():
    taps = {"encoder": SetSpec(64)}, {"encoder": SetSpec(22)}
    assert PointDistillerConfig().build(*taps).teacher_encoders[0].norm_scale.shape == (22,)
    assert PointDistillerConfig(channels=9).build(*taps).student_encoders[0].norm_scale.shape == (9,)


def test_normalisation_escapes_weight_decay_except_in_the_released_form():
    method = PointDistillerConfig().build(fakes.specs(4), fakes.specs(2))
    expected = {f"{side}_encoders.0.norm_{part}" for side in ("teacher", "student") for part in ("scale", "shift")}
    assert method.no_decay() == expected
    assert expected < {name for name, _ in method.named_parameters()}
    assert PointDistillerConfig(form="released").build(fakes.specs(4), fakes.specs(2)).no_decay() == frozenset()


def test_a_frozen_teacher_encoder_gets_no_gradient():
    taps = (
        {"encoder": as_set(torch.randn(20, 5), occupancy=torch.arange(20))},
        {"encoder": as_set(torch.randn(20, 3).requires_grad_())},
    )
    method, forward = run(PointDistillerConfig(train_teacher_encoder=False), *taps)
    forward().total.backward()
    assert all(parameter.grad is None for parameter in method.teacher_encoders.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.student_encoders.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "official"}, "pointdistiller.form is 'official'; use one of paper, released"),
        ({"scope": "frame"}, "pointdistiller.scope is 'frame'; use one of sample, batch"),
        ({"num_queries": 0}, "pointdistiller.num_queries is 0; give 1 or more"),
        ({"temperature": 0.0}, "pointdistiller.temperature is 0.0; give a number above 0"),
        ({"importance": "size"}, "pointdistiller.importance is 'size'; use one of occupancy, channel_max"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        PointDistillerConfig(**settings)


def test_networks_without_a_common_tap_are_refused():
    with pytest.raises(
        InputError, match=r"pointdistiller needs the tap 'encoder' or 'bev\.\*' or 'neck' or 'points' in both"
    ):
        PointDistillerConfig().build(fakes.specs(4), {"proposals": SetSpec(4)})


def test_other_rows_in_the_student_are_refused():
    taught, counts = torch.randn(9, 4), torch.arange(9)
    fewer = as_set(torch.randn(8, 4).requires_grad_())
    with pytest.raises(
        InputError,
        match="'encoder' cannot be compared, since it has 9 rows in the teacher and 8 in the student; give both",
    ):
        run(PointDistillerConfig(), {"encoder": as_set(taught, occupancy=counts)}, {"encoder": fewer})[1]()
    moved = replace(as_set(torch.randn(9, 4).requires_grad_()), positions=torch.ones(9, 3))
    with pytest.raises(InputError, match="'encoder' cannot be compared, since its rows lie at other places"):
        run(PointDistillerConfig(), {"encoder": as_set(taught, occupancy=counts)}, {"encoder": moved})[1]()


def test_sets_whose_rows_stand_for_other_cells_are_left_for_maps():
    voxels, pillars = ({"encoder": SetSpec(8, stride), "neck": MapSpec(8, 2 * stride)} for stride in (8, 1))
    assert PointDistillerConfig().build(voxels, pillars).taps == ("neck",)
    assert PointDistillerConfig().build(voxels, voxels).taps == ("encoder",)
    with pytest.raises(
        InputError,
        match="stand for cells 8 voxels wide in the teacher and 1 in the student; choose another tap: 'neck'",
    ):
        PointDistillerConfig(taps=("encoder",)).build(voxels, pillars)


def test_a_tap_before_every_trainable_layer_is_refused():
    taps = {"encoder": as_set(torch.randn(9, 4), occupancy=torch.arange(9))}, {"encoder": as_set(torch.randn(9, 4))}
    with pytest.raises(InputError, match="no trainable layer of the student lies before its tap 'encoder'"):
        run(PointDistillerConfig(), *taps)[1]()


def test_occupancy_that_a_tap_lacks_is_refused():
    taps = {"points": as_set(torch.randn(9, 4))}, {"points": as_set(torch.randn(9, 4).requires_grad_())}
    with pytest.raises(InputError, match="the teacher's tap 'points' has none; use channel_max"):
        run(PointDistillerConfig(importance="occupancy"), *taps)[1]()


# The authors' own numbers


@pytest.fixture
def golden(reference):
    def load(name):
        path = reference("distillation", f"pointdistiller_{name}.npz")
        with np.load(path, allow_pickle=False) as stored:
            return {key: torch.as_tensor(stored[key]) for key in stored.files}

    return load


def load_encoder(encoder, stored, prefix):
    with torch.no_grad():
        encoder.convolution.weight.copy_(stored[f"{prefix}.conv.weight"][:, :, 0, 0])
        encoder.norm_scale.copy_(stored[f"{prefix}.bn.weight"])
        encoder.norm_shift.copy_(stored[f"{prefix}.bn.bias"])


def assert_close(value, stored):
    assert ((value - stored).norm() / stored.norm()).item() < 1e-4


@pytest.mark.parametrize("name", ["pillars_small", "pillars_small_16x"])
@pytest.mark.parametrize("reweight", [False, True])
@pytest.mark.parametrize("edge", ["concat", "residual"])
def test_pillar_form_equals_the_released_code(golden, monkeypatch, name, reweight, edge):
    stored = golden(name)
    # Its unsorted top-k breaks ties between equal counts in its own way, so its choice is taken over.
    monkeypatch.setattr(pointdistiller, "select_queries", lambda *_: stored["query_idx"])
    config = replace(PUBLISHED["pointpillars"], num_neighbours=int(stored["kneighbours"]), reweight=reweight, edge=edge)
    learnt = stored["student_feature"].clone().requires_grad_()
    taps = {"encoder": as_set(stored["teacher_feature"], occupancy=stored["num_points"])}, {"encoder": as_set(learnt)}
    method, forward = run(config, *taps)
    load_encoder(method.teacher_encoders[0], stored, "teacher_adapt")
    load_encoder(method.student_encoders[0], stored, "student_adapt")
    value = forward().terms["pointdistiller/encoder"]
    value.backward()
    key = f"reweight{int(reweight)}.{edge}"
    assert value.item() == pytest.approx(stored[f"loss.{key}"].item(), rel=1e-4)
    assert_close(learnt.grad, stored[f"grad_student.{key}"])
    assert_close(
        method.student_encoders[0].convolution.weight.grad, stored[f"grad_student_adapt_conv.{key}"][:, :, 0, 0]
    )
    assert_close(
        method.teacher_encoders[0].convolution.weight.grad, stored[f"grad_teacher_adapt_conv.{key}"][:, :, 0, 0]
    )


@pytest.mark.parametrize("name", ["pillars_small", "pillars_small_16x"])
def test_queries_and_neighbours_are_those_of_the_released_code_up_to_ties(golden, name):
    stored = golden(name)
    counts, groups = stored["num_points"], torch.zeros(len(stored["num_points"])).long()
    queries = select_queries(counts.float(), groups, int(stored["num_voxels"]), "top", SEEDS)
    lowest = counts[queries].min()
    assert set(queries[counts[queries] > lowest].tolist()) == set(
        stored["query_idx"][counts[stored["query_idx"]] > lowest].tolist()
    )
    assert sorted(counts[queries].tolist()) == sorted(counts[stored["query_idx"]].tolist())
    found = nearest_rows(stored["teacher_feature"], groups, stored["query_idx"], int(stored["kneighbours"]))
    assert torch.equal(found.sort(dim=1).values, stored["knn_idx"].sort(dim=1).values)


@pytest.mark.parametrize("reweight", [False, True])
def test_map_form_equals_the_released_code(golden, reweight):
    stored = golden("second_small")

    def maps(side):
        features = [stored[f"{side}_feature.{i}"].clone().requires_grad_(side == "student") for i in range(2)]
        return {f"bev.{i}": FeatureMap.at(value, (0.0, 0.0), (1.0, 1.0)) for i, value in enumerate(features)}

    settings = {
        "num_queries": int(stored["num_voxels"]),
        "num_neighbours": int(stored["kneighbours"]),
        "channels": int(stored["channels_out"]),
    }
    taught, learnt = maps("teacher"), maps("student")
    method, forward = run(replace(PUBLISHED["second"], reweight=reweight, **settings), taught, learnt, 2)
    for i in range(2):
        load_encoder(method.teacher_encoders[i], stored, f"teacher_adapt.{i}")
        load_encoder(method.student_encoders[i], stored, f"student_adapt.{i}")
    value = forward().total
    value.backward()
    assert value.item() == pytest.approx(stored[f"loss.reweight{int(reweight)}"].item(), rel=1e-4)
    for i in range(2):
        assert_close(learnt[f"bev.{i}"].features.grad, stored[f"grad_student.reweight{int(reweight)}.{i}"])


@pytest.mark.parametrize("pooling", ["none", "max", "avg"])
def test_point_form_equals_the_released_code(golden, pooling):
    stored = golden("pointrcnn_small")
    groups = torch.arange(2).repeat_interleave(300)
    learnt = stored["student_feature"].clone().requires_grad_()
    taught = stored["teacher_feature"].transpose(1, 2).reshape(600, 32)
    taps = {"points": as_set(taught, groups)}, {"points": as_set(learnt.transpose(1, 2).reshape(600, 16), groups)}
    settings = {
        "num_queries": int(stored["num_points"]),
        "num_neighbours": int(stored["kneighbours"]),
        "channels": int(stored["channels_out"]),
    }
    method, forward = run(replace(PUBLISHED["pointrcnn"], pooling=pooling, **settings), *taps, 2)
    load_encoder(method.teacher_encoders[0], stored, "teacher_adapt")
    load_encoder(method.student_encoders[0], stored, "student_adapt")
    value = forward().total
    value.backward()
    assert value.item() == pytest.approx(stored[f"loss.pool_{pooling}"].item(), rel=1e-4)
    assert_close(learnt.grad, stored[f"grad_student.pool_{pooling}"])
