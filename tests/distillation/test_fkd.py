import pytest
import torch
from torch import Tensor, nn

from lidistill.distillation.fkd import PUBLISHED, Fkd, FkdConfig, attention, map_distance, mask
from lidistill.types import InputError
from tests.distillation.pairs import build, compare, grid
from tests.reference import fkd as slow

SMALL = {"pool": 2, "relation_channels": 4}
PARTS = ("feature", "attention", "relation")


def pair_of(case: str, width: int) -> tuple[Tensor, Tensor]:
    """Maps of a teacher with 4 channels and a student with `width`."""
    draw = torch.Generator().manual_seed(1)
    taught, learnt = (torch.randn(2, each, 5, 7, generator=draw, dtype=torch.float64) for each in (4, width))
    if case == "one cell":
        return taught[..., :1, :1].clone(), learnt[..., :1, :1].clone()
    if case == "tied":
        return taught[..., :1].expand_as(taught).clone(), learnt[:, :1].expand_as(learnt).clone()
    if case == "dead":
        return taught, torch.zeros_like(learnt)
    if case == "hostile":
        return 1e3 * taught.sign(), 1e-6 * learnt
    return taught, learnt


def unhidden(method: nn.Module) -> Fkd:
    """In double precision, with every layer in use from the start."""
    for name, parameter in method.named_parameters():
        if name.endswith("scale"):
            nn.init.normal_(parameter)
    return method.double()


@pytest.mark.parametrize(("width", "stride"), [(3, 1), (4, 1), (3, 2)])  # a thinner student, and an equally wide one
@pytest.mark.parametrize("case", ["random", "one cell", "tied", "dead", "hostile"])
def test_values_and_gradients_are_those_of_the_slow_twin(case, width, stride):
    torch.manual_seed(0)
    settings = {"temperature": 0.5, "relation_stride": stride, **SMALL}
    config = FkdConfig(**{f"{part}_weight": 1.0 for part in PARTS}, **settings)
    taught, learnt = pair_of(case, width)
    method = unhidden(build(config, grid(taught), grid(learnt)))
    results = []
    for form in ("fast", "slow"):
        leaf = learnt.clone().requires_grad_()
        if form == "fast":
            losses = compare(config, grid(taught), grid(leaf), change=lambda own: replace_by(own, method))
            terms = {name.rpartition(".")[2]: term for name, term in losses.terms.items()}
        else:
            terms = slow.terms(taught, leaf, method, 0.5, stride, SMALL["pool"])
        assert tuple(terms) == PARTS
        for name in PARTS:
            leaves = [leaf, *method.parameters()]
            gradients = torch.autograd.grad(
                terms[name], leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            results.append([terms[name].detach(), *gradients])
    for own, other in zip(results[:3], results[3:], strict=True):
        for one, another in zip(own, other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-6, atol=1e-8 * max(1.0, another.abs().max().item()))


def replace_by(own: Fkd, other: Fkd) -> None:
    """Give `own` the layers of `other`."""
    own.features, own.attentions, own.relations = other.features, other.attentions, other.relations


def test_hand_counted_attention_and_masks():
    features = torch.tensor([[[[1.0, -3.0]], [[3.0, 1.0]]]])
    cells, channels = attention(features)
    assert cells.tolist() == [[[2.0, 2.0]]]
    assert channels.tolist() == [[2.0, 2.0]]
    lead, flat = torch.tensor([[1.0, 1.0, 1.0 + torch.log(torch.tensor(2.0))]]), torch.ones(1, 3)
    torch.testing.assert_close(mask((lead, flat), 1.0), torch.tensor([[0.875, 0.875, 1.25]]))
    torch.testing.assert_close(mask((lead, torch.ones(1, 2)), 1.0), torch.tensor([[0.75, 0.75, 1.5]]))


def test_hand_counted_distance():
    taught, learnt = torch.tensor([[[[3.0, 0.0]]], [[[0.0, 5.0]]]]), torch.tensor([[[[0.0, 4.0]]], [[[0.0, 5.0]]]])
    identity, nothing = torch.ones(1, 1), torch.zeros(1)
    assert map_distance(learnt, identity, nothing, taught).item() == pytest.approx((5 + 0) / 2)
    cells, channels = torch.tensor([[[0.5, 1.5]], [[1.0, 1.0]]]), torch.full((2, 1), 2.0)
    found = map_distance(learnt, identity, nothing, taught, cells, channels).item()
    assert found == pytest.approx((2 * (0.5 * 9 + 1.5 * 16)) ** 0.5 / 2)


def without_layers(method: Fkd) -> None:
    """Identities in place of all adapters."""
    nn.init.dirac_(method.attentions[0].over_cells.weight)
    adapters = [method.features[0], method.attentions[0].over_channels, method.relations[0].adapter]
    for layer in adapters:
        nn.init.eye_(layer.weight)
    for layer in [*adapters, method.attentions[0].over_cells]:
        nn.init.zeros_(layer.bias)


def test_an_equal_student_behind_identities_has_nothing_to_learn():
    features = torch.randn(2, 3, 5, 7)
    learnt = features.clone().requires_grad_()
    losses = compare(FkdConfig(), grid(features), grid(learnt), change=without_layers)
    losses.total.backward()
    assert losses.total.item() == 0
    assert learnt.grad.abs().max() == 0


def test_a_relation_starts_as_the_distance_of_the_maps():
    taught, learnt = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    losses = compare(
        FkdConfig(relation_weight=1.0, relation_stride=1), grid(taught), grid(learnt), change=without_layers
    )
    expected = (taught - learnt).flatten(1).norm(dim=1).mean()
    torch.testing.assert_close(losses.terms["fkd/neck.relation"], expected)


def test_an_error_counts_most_where_a_network_is_active():
    quiet, loud = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    loud[..., 1] = 1.0  # the teacher is active in the second cell
    values = []
    for wrong in (0, 1):
        learnt = loud.clone()
        learnt[0, :, 0, wrong] += 0.1
        losses = compare(FkdConfig(), grid(loud), grid(learnt), change=without_layers)
        values.append(losses.terms["fkd/neck.feature"].item())
    assert values[1] > 10 * values[0]
    shares = [compare(FkdConfig(), grid(m), grid(m)).logs["fkd/neck.effective_share"].item() for m in (quiet, loud)]
    assert shares == pytest.approx([1.0, 0.5], abs=1e-3)


def unexplained(taught: Tensor, learnt: Tensor) -> float:
    """Share of the teacher's variance that is no affine function of the student's cells."""
    wanted, own = (maps.detach().permute(0, 2, 3, 1).flatten(0, 2) for maps in (taught, learnt))
    own = torch.cat([own, torch.ones_like(own[:, :1])], dim=1)
    left = wanted - own @ torch.linalg.lstsq(own, wanted).solution
    return (left.square().sum() / (wanted - wanted.mean(dim=0)).square().sum()).item()


@pytest.mark.parametrize("part", PARTS)
def test_each_term_alone_teaches_the_student(part):
    """A student of three channels takes over a teacher of three independent ones, or where it is active."""
    torch.manual_seed(0)
    taught, learnt = torch.einsum("dc,bchw->bdhw", torch.randn(6, 3), torch.randn(2, 3, 6, 8)), torch.randn(2, 3, 6, 8)
    config = FkdConfig(**{f"{each}_weight": float(each == part) for each in PARTS}, relation_stride=1, **SMALL)
    method = build(config, grid(taught), grid(learnt))

    def ignorance() -> float:
        if part != "attention":
            return unexplained(taught, learnt)
        adapted = method.attentions[0].over_cells(attention(learnt.detach())[0][:, None])[:, 0].detach()
        return 1 - torch.corrcoef(torch.stack([attention(taught)[0].flatten(), adapted.flatten()]))[0, 1].item()

    before = ignorance()
    learnt.requires_grad_()
    optimiser = torch.optim.Adam([learnt, *method.parameters()], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        losses = compare(config, grid(taught), grid(learnt), change=lambda own: replace_by(own, method))
        assert set(losses.terms) == {f"fkd/neck.{part}"}
        losses.total.backward()
        optimiser.step()
    assert before > 0.7
    assert ignorance() < 0.3


def test_the_maps_and_attentions_of_a_frame_are_compared_on_their_own():
    taught, learnt = torch.randn(3, 4, 5, 6), torch.randn(3, 2, 5, 6)

    def terms(rows):
        torch.manual_seed(0)
        return compare(FkdConfig(), grid(taught[rows]), grid(learnt[rows])).terms

    for part in ("feature", "attention"):
        name = f"fkd/neck.{part}"
        alone = torch.stack([terms([row])[name] for row in range(3)]).mean()
        torch.testing.assert_close(terms([0, 1, 2])[name], alone)


def test_a_coarser_student_is_read_at_the_teachers_cells():
    flat = torch.ones(1, 3, 2, 2)
    losses = compare(FkdConfig(), grid(torch.ones(1, 3, 4, 4)), grid(flat, cell=(2.0, 2.0)), change=without_layers)
    assert losses.terms["fkd/neck.feature"].item() == pytest.approx(0, abs=1e-6)


def test_what_is_no_number_stays_none():
    broken = torch.randn(1, 2, 3, 3)
    broken[0, 0, 0, 0] = float("nan")
    terms = compare(FkdConfig(), grid(torch.randn(1, 2, 3, 3)), grid(broken)).terms
    assert all(term.isnan() for term in terms.values())


def test_two_stage_detectors_have_a_sixth_of_the_weights():
    one, two = (PUBLISHED[f"{number}-stage detectors"] for number in ("one", "two"))
    for part in PARTS:
        assert getattr(one, f"{part}_weight") == pytest.approx(6 * getattr(two, f"{part}_weight"))


def test_the_scales_of_the_normalisation_are_not_decayed():
    method = build(FkdConfig(), grid(torch.zeros(1, 4, 1, 1)), grid(torch.zeros(1, 2, 1, 1)))
    assert len(method.no_decay()) == 4
    assert all("output.s" in name for name in method.no_decay())


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="fkd: all of its weights are 0; leave one of feature_weight"):
        FkdConfig(feature_weight=0, attention_weight=0, relation_weight=0)
    with pytest.raises(InputError, match="fkd.temperature is 0; give 0.001 or more"):
        FkdConfig(temperature=0)
    with pytest.raises(InputError, match="fkd.pool is 0; give 1 or more"):
        FkdConfig(pool=0)
