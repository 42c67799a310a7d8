"""One teacher, plain and distilled student for all tests of the report, and the page made from them."""

import pytest

from lidistill.datasets import PROTOCOLS
from lidistill.report.measures import gains
from lidistill.report.measures.runs import read_runs
from lidistill.report.render.page import build_page, write_report
from tests.report.fake_runs import write_trio


@pytest.fixture(scope="session")
def trio(tmp_path_factory):
    """Run folders of a teacher, a plain and a distilled student."""
    return write_trio(tmp_path_factory.mktemp("runs"), 30)


@pytest.fixture(autouse=True, scope="session")
def _few_resamples():
    patch = pytest.MonkeyPatch()
    patch.setattr(gains, "RESAMPLES", 40)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def runs(trio):
    return read_runs(trio, PROTOCOLS)


@pytest.fixture(scope="session")
def pair(runs):
    return gains.pair_runs(runs)[0]


@pytest.fixture(scope="session")
def page(runs):
    return build_page(runs)


@pytest.fixture(scope="session")
def report(trio, tmp_path_factory):
    """Folder of a written report."""
    return write_report(trio, tmp_path_factory.mktemp("report"), PROTOCOLS).parent
