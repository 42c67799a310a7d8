"""The recipes: every one is read, planned, and built down to its methods, without training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lidistill.jobs.comparison_plan import PLAIN, Comparison, check_alike, plan_student_runs
from lidistill.jobs.demonstration import DEMO_METHOD_SETTINGS
from lidistill.jobs.method_catalogue import built, tap_specs
from lidistill.jobs.setup import supervised
from lidistill.ops.kernels.neighbours import k_nearest
from lidistill.run_folder import RunFolder
from tests.distillation import fakes

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module", params=RECIPES, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def plan(path) -> Comparison:
    return Comparison.read(path)


@pytest.fixture(scope="module")
def runs(plan, tmp_path_factory):
    """The planned students of a teacher that is described and not trained."""
    base = tmp_path_factory.mktemp("recipe")
    teacher = supervised(plan.start, data=plan.data, seed=plan.seeds[0], overrides=plan.overrides)
    RunFolder(base / "teacher").write_experiment(teacher.to_dict())
    runs = plan_student_runs(plan, teacher, base / "teacher", base / "out")
    check_alike(runs, teacher)
    return runs


def test_there_are_recipes():
    assert {"methods", "pointdistiller-parts", "pointdistiller-sizes", "itkd-parts", "rdd-parts"} <= {
        path.stem for path in RECIPES
    }


def test_a_recipe_plans_every_row_and_seed_beside_the_plain_student(plan, runs):
    names = [PLAIN, *(row.name for row in plan.rows if row.name != PLAIN)]
    assert [(run.row, run.seed) for run in runs] == [(name, seed) for name in names for seed in plan.seeds]
    assert all((run.experiment.distillation is None) is (run.row == PLAIN) for run in runs)


def test_its_methods_can_be_built_and_no_two_rows_are_the_same(plan, runs):
    specs = tap_specs(plan.start)
    distillations = [run.experiment.distillation for run in runs if run.seed == plan.seeds[0]]
    for distillation in distillations:
        for settings in () if distillation is None else distillation.methods:
            assert built(settings, *specs).config == settings
    assert len({repr(distillation) for distillation in distillations}) == len(distillations)


def test_its_losses_are_finite_on_random_outputs(plan, runs):
    batch = fakes.make_batch()
    taught = fakes.output(8, batch, 1)
    for run in runs:
        if run.seed == plan.seeds[0] and run.experiment.distillation is not None:
            for settings in run.experiment.distillation.methods:
                method = settings.build(fakes.specs(8), fakes.specs(4))
                total = method(taught, fakes.output(4, batch, 2, requires_grad=True), batch).total
                assert total.isfinite() and total.requires_grad, run.row


def test_it_says_how_to_run_it_and_the_page_lists_it(path):
    assert f"# lidistill compare recipes/{path.name} --out runs/{path.stem}\n" in path.read_text(encoding="utf-8")
    assert f"`recipes/{path.name}`" in (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")


def test_pointdistiller_is_compared_at_the_demos_settings():
    rows = {row.name: row for row in Comparison.read(ROOT / "recipes" / "methods.yaml").rows}
    assert rows["pointdistiller"].overrides == DEMO_METHOD_SETTINGS
    assert {"none", "logits", "fitnets", "pointdistiller", "itkd", "rdd", "sparsekd"} <= set(rows)


def test_one_neighbour_is_the_centre_itself():
    """What "weights" alone of PointDistiller's ablation rests on."""
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    chosen = torch.arange(0, 40, 3)
    assert torch.equal(k_nearest(rows[chosen], rows, 1).flatten(), chosen)
