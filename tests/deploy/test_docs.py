"""The site of docs/, built strictly: every link and anchor leads somewhere, every page is in the menu or said not to be.

Needs mkdocs-material, from deploy.lock; without it the tests are skipped, and say so. With SCRIMP_REQUIRE=helm they fail instead:
`make deploy-test` sets that, and installs both.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.servers.required import required

ROOT = Path(__file__).parents[2]

if importlib.util.find_spec("material") is None and not required("helm"):
    pytest.skip("no mkdocs-material: `make deploy-test` installs it", allow_module_level=True)


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(site)],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there_and_the_readme_is_the_first(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for page in ROOT.glob("docs/**/*.md")}
    pages = {page.replace("README.html", "index.html") for page in pages}
    assert {page for page in pages if not (site / page).exists()} == set()
    assert "answers LLM requests for the least money" in (site / "index.html").read_text()


class Fetched(HTMLParser):
    """What a browser gets for a page without being asked: everything but the links that a reader may follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag in {"script", "img", "iframe"} or (tag == "link" and told.get("rel") != "canonical"):
            self.addresses += [value for name in ("src", "href") if (value := told.get(name))]


def test_a_reader_s_browser_asks_no_other_host(site: Path) -> None:
    fetched = {address for page in site.glob("**/*.html") for address in Fetched(page.read_text()).addresses}
    assert fetched
    assert {address for address in fetched if re.match(r"(\w+:)?//", address)} == set()


def test_files_of_the_repository_are_in_the_site_as_they_are(site: Path) -> None:
    page = (site / "publish.html").read_text()
    assert 'href="repository/examples/ask.sh.txt"' in page
    assert (site / "repository/examples/ask.sh.txt").read_bytes() == (ROOT / "examples/ask.sh").read_bytes()


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    for path in ROOT.iterdir():  # the site's links into the repository stay good
        if path.name not in ("docs", "mkdocs.yml"):
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    page = tmp_path / "docs" / "quickstart.md"
    page.write_text(page.read_text() + "\n[a page](gone.md), [a file](../examples/gone.py), [an anchor](publish.md#gone)\n")
    (tmp_path / "docs" / "forgotten.md").write_text("# In no menu\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.findall(r"(?:- |')(gone\.md|\S*gone\.py|publish\.md#gone|forgotten\.md)", said) == [
        "forgotten.md",
        "gone.md",
        "../examples/gone.py",
        "publish.md#gone",
    ], said
    assert "Aborted with 4 warnings" in said
