"""The documentation as a site: strict, whole, and without anything that a browser would fetch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Where an address makes a browser fetch something; a link in a text does not.
FETCHES = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A page outside of the nav, a link or an anchor that is not there: each is a
    warning, and ends the build."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


class Fetched(HTMLParser):
    """The addresses that a page has a browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get(FETCHES.get(tag, "")) or "")
        self.addresses += re.findall(r"url\((.*?)\)", given.get("style") or "")


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        found = [at for at in Fetched(text).addresses if re.match(r"(https?:)?//", at)]
        assert found == [], page.name
        # The theme would fetch mermaid's script for one.
        assert 'class="mermaid"' not in text, page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text()), style.name


def test_diagrams_of_states_are_drawn_from_the_tables(site: Path) -> None:
    page = (site / "states.html").read_text()
    tables = (ROOT / "docs" / "states.md").read_text().count("```mermaid")
    assert page.count("<title>%3</title>") == tables >= 6
    assert ">unclaimed</text>" in page and ">put_back</text>" in page


def test_what_pages_link_to_in_the_repository_is_in_the_site(site: Path) -> None:
    unit = "deploy/systemd/trunkline.service"
    assert (site / "files" / unit).read_text() == (ROOT / unit).read_text()
    assert f'href="files/{unit}"' in (site / "packages.html").read_text()
    assert 'href="../architecture.html#the-way-of-a-frame"' in (
        (site / "rooms" / "controller.html").read_text()
    )
