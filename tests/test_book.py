"""The book: built without a warning, whole, and read without a network. Needs the extra `book`; `make book` installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("myst_nb")
pytest.importorskip("furo")
pytest.importorskip("latex2mathml")
pytest.importorskip("ziamath")

from test_browser import browser  # noqa: F401

from clgan_lib.paths import ROOT

pytestmark = pytest.mark.timeout(1200)
LOADS = {"src", "srcset", "data", "poster"}  # attributes that a browser fetches by itself; <link href> besides


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of what git holds, in a folder whose name would break an address that was not escaped."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("book")
    source, out = folder / "source", folder / "a book #1"
    subprocess.run(["git", "checkout-index", "-a", f"--prefix={source}/"], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(folder / "doctrees")]
    environment = os.environ | {"PYTHONPATH": str(source)}
    command += ["-c", "docs", ".", str(out)]
    built = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert not built.stderr.strip(), built.stderr
    shutil.rmtree(source)  # pages that leaned on it would show now
    return out


class Links(HTMLParser):
    """What a page loads, where it leads, and the names in it that one can lead to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.names: set[str] = set()
        self.feed(page.read_text(encoding="utf8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.loads += [value for key, value in values.items() if key in LOADS]
        if "href" in values:
            (self.loads if tag == "link" else self.leads).append(values["href"])
        self.names |= {values[key] for key in ("id", "name") if key in values}


@pytest.fixture(scope="module")
def pages(book: Path) -> dict[Path, Links]:
    """The pages that Sphinx wrote; the reports have tests of their own."""
    written = (p for p in sorted(book.rglob("*.html")) if p.relative_to(book).parts[0] not in ("results", "_downloads"))
    return {page: Links(page) for page in written}


def test_no_page_loads_anything_from_the_network(book: Path, pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        assert not [url for url in links.loads if re.match(r"(\w+:)?//", url) and not url.startswith("data:")], page
        for script in re.findall(r"<script[^>]*>(.*?)</script>", page.read_text(encoding="utf8"), re.S):
            assert not re.search(r"https?://", script), page
    for style in book.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text(encoding="utf8")), style


def test_links_between_pages_lead_somewhere(book: Path, pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        for link in [*links.loads, *links.leads]:
            url = urlsplit(link)
            if url.scheme or link in ("", "#"):
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            assert target.exists(), f"{page.relative_to(book)} leads to {link}"
            if url.fragment and target in pages:
                assert unquote(url.fragment) in pages[target].names, f"{page.relative_to(book)} leads to {link}"


def test_the_book_is_whole(book: Path) -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert (book / f"notebooks/{notebook.stem}.html").is_file()
    modules = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "clgan_lib").rglob("*.py")]
    for module in modules:
        name = ".".join(module.parts).removesuffix(".__init__")
        if module.stem == "__main__":  # a command, not to be imported
            continue
        assert (book / f"docs/api/{name}.html").is_file(), name
    home = (book / "docs/index.html").read_text(encoding="utf8")
    listed = ["git", "ls-files", "results/*/report.html"]
    reports = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert reports and all(f'href="../{report}"' in home and (book / report).is_file() for report in reports)
    for reader in ("readers of the paper", "students", "lecturers", "engineers"):
        assert f"For {reader}" in home


def test_tables_and_figures_have_an_anchor_their_data_and_a_command(book: Path, pages: dict[Path, Links]) -> None:
    for name in ("results", "restoring", "features", "training_length", "ledger", "running"):
        page = book / f"docs/{name}.html"
        source = (ROOT / f"docs/{name}.md").read_text(encoding="utf8")
        anchors = {f"table-{table}" for table in re.findall("<!-- table: (.+) -->", source)}
        anchors |= {f"figure-{'-'.join(parts)}" for parts in re.findall(r"\(\.\./results/(\w+)/figures/(\w+)", source)}
        assert anchors and {name.replace("_", "-") for name in anchors} <= pages[page].names
    assert "../results/mvtec_cpu/tables/table3.csv" in pages[book / "docs/results.html"].leads
    text = re.sub("<[^>]+>", "", (book / "docs/results.html").read_text(encoding="utf8"))
    assert "#table-mvtec_cpu · results/mvtec_cpu/tables/table3.csv · made by make docs" in text
    index = (book / "results/index.html").read_text(encoding="utf8")
    assert 'id="experiments"' in index and "../results/index.html" in pages[book / "docs/index.html"].leads
    for report in re.findall(r'<li><a href="(\w+/report.html)"', index):
        assert (book / "results" / report).is_file()


def test_equations_are_drawn_and_numbered(book: Path, pages: dict[Path, Links]) -> None:
    losses = (book / "docs/api/clgan_lib.losses.html").read_text(encoding="utf8")
    assert [int(n) for n in re.findall(r'<span class="eqno">\((\d+)\)', losses)] == [1, 2]
    assert len(re.findall(r"<mfrac>", losses)) == 1 and "$$" not in losses and ":math:" not in losses
    lesson = (book / "notebooks/02_losses.html").read_text(encoding="utf8")
    assert [int(n) for n in re.findall(r'<span class="eqno">\((\d+)\)', lesson)] == [1, 2, 3, 6]
    for page in pages:
        prose = re.sub(r"<(pre|code|script|math)\b.*?</\1>", "", page.read_text(encoding="utf8"), flags=re.S)
        assert not re.search(r"\\(frac|lambda|tau|sum|log)\b|merror", prose), page
    assert (book / "_static/math.woff").read_bytes()[:4] == b"wOFF"


def test_it_is_read_and_searched_without_a_network(book: Path, browser: Any) -> None:  # noqa: F811
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 800})
    try:
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((book / "index.html").as_uri())
        page.wait_for_url("**/docs/index.html")
        page.get_by_role("link", name="The losses", exact=True).first.click()
        page.wait_for_load_state()
        assert page.locator("h1").first.inner_text().startswith("The losses")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.fonts.load('16px \"STIX Two Math\"').then(fonts => fonts.length)") == 1
        page.goto((book / "search.html").as_uri() + "?q=temperature")
        page.locator("#search-results li", has_text="clgan_lib.losses").wait_for()
        assert all(url.startswith(("file:", "data:")) for url in requests)
    finally:
        context.close()
