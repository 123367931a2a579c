"""The report: one file, no network, nothing from a file name runs, and both notebooks that make it."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import nbformat
import pytest
from fake_runs import fake_run
from matplotlib import pyplot as plt

from clgan_lib.exhibits import report, tables
from clgan_lib.paths import ROOT

matplotlib.use("agg")
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects tags and what they refer to, and checks that every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for model in ("clgan", "template", f"bad.{EVIL.replace('/', '|')}:Evil{EVIL.replace('/', '|')}"):
        fake_run(tmp_path, model.replace("|", "_"), "bottle", experiment="e")
    return tmp_path


def test_names_from_files_are_text_not_tags(root: Path) -> None:
    frame = tables.collect(root, "e")
    frame["category"] = f"bottle{EVIL}"
    frame.attrs["notes"] = [f"{EVIL} is not used"]
    (root / "e" / "tables").mkdir()
    (root / "e" / "tables" / "<script>alert(2)<script> & '\".csv").write_text("")
    page = report.write_experiment(root / "e", frame)
    text = page.read_text()
    parsed = Page(text)
    assert parsed.tags.count("script") == 2 and EVIL not in text and "alert(2)<" not in text  # ours: data and program
    assert f"bottle{EVIL}" in parsed.words and f"{EVIL} is not used" in parsed.words
    assert any("%3Cscript%3E" in link and "'" not in link and '"' not in link for link in parsed.links)


def test_one_file_without_network(root: Path) -> None:
    frame = tables.collect(root, "e")
    page = report.write_experiment(root / "e", frame)
    parsed = Page(page.read_text())
    assert all(link.startswith(("data:image/", "#", "tables/", "figures/")) for link in parsed.links), parsed.links
    assert not re.search(r"@import|url\(|<link|<iframe", page.read_text())
    assert {"tables/table3.csv", "tables/table3.tex"} <= set(parsed.links)
    anchors = [link for link in parsed.links if link.startswith("#")]
    assert [link for link in anchors if re.fullmatch(r"#s\d+", link)] == [f"#s{i}" for i in range(1, 14)]
    assert {"#leaderboard", "#table3", "#figure-scores"} <= set(anchors)
    assert all(f'id="{link[1:]}"' in page.read_text() for link in anchors)
    assert "make report EXPERIMENT=e" in parsed.words
    heads = [parsed.words.index(title) for title in ("What you see", "Leaderboard", "Pictures", "Summary", "Table 3")]
    assert heads == sorted(heads) and any("CLGAN is number" in word for word in parsed.words)
    titles = {"The networks: Fig. 1, Tables 1 and 2", "The data: Fig. 3", "The paper's own tables, audited"}
    assert titles <= set(parsed.words) and any(word.startswith("43.26 ✗") for word in parsed.words)
    assert any("3 of 3 runs" in word for word in parsed.words)


def test_plots_are_vectors_and_pictures_are_not() -> None:
    plot, axis = plt.subplots()
    axis.plot([1, 2])
    plot.supxlabel("the caption of <this> figure")
    assert 'src="data:image/svg+xml;base64,' in report.image(plot)
    assert 'alt="the caption of &lt;this&gt; figure"' in report.image(plot)
    axis.imshow([[1, 2]])
    assert 'src="data:image/webp;base64,' in report.image(plot)
    plt.close(plot)


def run_notebook(name: str, **parameters: str) -> None:
    """Run a notebook's cells one after the other, the parameters put in where papermill puts them."""
    names: dict[str, object] = {}
    for cell in nbformat.read(ROOT / "notebooks" / name, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, name, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(parameters) <= set(names)
                names.update(parameters)


def test_the_two_notebooks_make_the_report(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for model, category in [("clgan", "bottle"), ("clgan", "grid"), ("template", "bottle"), ("my.own:Model", "grid")]:
        fake_run(results, model, category, experiment="e")
    settings = {"experiment": "e", "results_root": str(results)}
    run_notebook("21_threshold_sweep.ipynb", **settings)
    run_notebook("20_compare.ipynb", **settings)
    made = {path.relative_to(results / "e").as_posix() for path in (results / "e").glob("[tf]*s/*")}
    assert {
        "tables/table3.csv",
        "tables/table3.md",
        "tables/table3.tex",
        "tables/table4.csv",
        "tables/table4.tex",
    } <= made
    assert {"tables/differences_clgan.md", "tables/protocols.csv", "figures/fig4.png", "figures/fig5.png"} <= made
    words = Page((results / "e" / "report.html").read_text()).words
    assert {"Table 3", "Table 4", "One set of maps, many numbers", "Model", "—"} <= set(words)
    assert any("2 of 6 runs missing" in word for word in words)


def test_compare_works_from_metrics_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    for model in ("clgan", "template"):
        folder = fake_run(results, model, "bottle", experiment="e", maps=False)
        for path in folder.iterdir():
            if path.name != "metrics.json":
                path.unlink()
    run_notebook("20_compare.ipynb", experiment="e", results_root=str(results))
    printed = capsys.readouterr().out
    assert "No pictures" in printed and "No interval" in printed
    assert not (results / "e" / "figures" / "fig4.png").exists() and (results / "e" / "report.html").is_file()


def test_what_git_holds_is_not_replaced_by_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkout of a committed experiment: `metrics.json`, tables and figures, neither maps nor scores of images."""
    results = tmp_path / "results"
    for model in ("clgan", "template"):
        fake_run(results, model, "bottle", experiment="e")
    settings = {"experiment": "e", "results_root": str(results)}
    for name in ("21_threshold_sweep.ipynb", "20_compare.ipynb"):
        run_notebook(name, **settings)
    page = (results / "e" / "report.html").read_text()
    for run in results.glob("e/*/*/seed*/*"):
        if run.name != "metrics.json":
            run.unlink()
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(results), *command], check=True)
    before = {path: path.read_bytes() for path in results.glob("e/[tf]*s/*")}
    capsys.readouterr()
    for name in ("21_threshold_sweep.ipynb", "20_compare.ipynb"):
        run_notebook(name, **settings)
    assert {path: path.read_bytes() for path in results.glob("e/[tf]*s/*")} == before
    assert "table4.csv as committed" in capsys.readouterr().out
    again = (results / "e" / "report.html").read_text()
    assert again.count("<img") == page.count("<img") and again.count("<table") == page.count("<table") - 1
    assert 'id="browser"' in page and 'id="browser"' not in again  # which needs the maps
    assert again.count('src="data:image/webp') == page.count('src="data:image/webp') > 2
