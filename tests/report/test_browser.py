"""The page in a real browser, where one is installed: it renders whole, and asks the network for nothing."""

import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=3000"),
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to open the page")


def chromium(*arguments: str, home) -> str:
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={home}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def dom(report, tmp_path_factory):
    return chromium(
        "--window-size=1200,2000", "--dump-dom", (report / "report.html").as_uri(), home=tmp_path_factory.mktemp("home")
    )


def test_tables_pictures_and_drawings_arrive_in_the_document(dom):
    assert dom.count("<table") >= 6
    assert dom.count("<img ") == 12
    assert dom.count("<svg ") == 7
    assert "SIMULATED DATA" in dom
    assert dom.rstrip().endswith("</html>")


def test_nothing_in_the_document_points_outside(dom):
    addresses = re.findall(r'(?:src|href|srcset|data|action)="([^"]*)"', dom)
    assert len(addresses) > 20
    assert not [address[:80] for address in addresses if not address.startswith(("#", "data:"))]


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_fits_the_window_and_every_picture_is_decoded(report, tmp_path, width):
    """A probe beside the page measures it, since the page itself holds no script."""
    page = (report / "report.html").read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const root = document.documentElement, images = [...document.images];
      const words = [...document.querySelectorAll("svg text")].filter(text => text.getBoundingClientRect().width > 0);
      const broken = images.filter(i => !i.naturalWidth).length;
      root.dataset.probe = [root.scrollWidth - innerWidth, broken, images.length, words.length].join(" ");
    });</script>"""
    (tmp_path / "probed.html").write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    dom = chromium(
        f"--window-size={width},2000", "--dump-dom", (tmp_path / "probed.html").as_uri(), home=tmp_path / "home"
    )
    overflow, broken, pictures, words = (int(part) for part in re.search(r'data-probe="([^"]+)"', dom)[1].split())
    assert overflow <= 0
    assert broken == 0
    assert pictures == 12
    assert words > 50
