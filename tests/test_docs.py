"""README.md and docs/: short, with links that lead somewhere, and with the tables that the committed runs give."""

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from clgan_lib.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = ("mvtec_cpu", "paper_scale", "restore", "restore_gpu", "features", "training_length", "readings")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        return importlib.import_module("generate")


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A folder of results with what git holds, whatever was trained or changed in the working tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = [f"results/{name}/**/metrics.json" for name in EXPERIMENTS] + ["results/ledger/ledger.csv"]
    files += [
        f"results/{name}/tables/training_length.csv" for name in ("training_length", "readings")
    ]  # measured on maps
    listed = subprocess.run(["git", "ls-files", "-z", *files], cwd=ROOT, capture_output=True, check=True).stdout
    command = ["git", "checkout-index", "-z", "--stdin", f"--prefix={tmp_path}/"]
    subprocess.run(command, cwd=ROOT, input=listed, check=True)
    return tmp_path / "results"


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", " ", page.read_text(encoding="utf8"), flags=re.S)


def row(page: str, table: str, *labels: str) -> list[str]:
    """The cells of one row of a table between markers, found by what its first columns say."""
    text = (
        (ROOT / page).read_text(encoding="utf8").partition(f"<!-- table: {table} -->")[2].partition("<!-- end -->")[0]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (found,) = (cells for cells in rows if cells[: len(labels)] == list(labels))
    return found


def test_the_readme_has_at_most_900_words() -> None:
    assert len(prose(ROOT / "README.md").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_paragraphs_are_short(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf8")):
        assert (page.parent / link).exists(), f"{page.name} points to {link}, which is not there"
    for paragraph in re.split(r"\n\s*\n|\n(?=\* |\d\. )", prose(page)):
        if not paragraph.lstrip().startswith("|"):
            assert len(paragraph.split()) <= 120, f"{page.name}: long paragraph: {paragraph[:60]} ..."


def test_the_pages_show_what_the_committed_runs_say(generate: ModuleType, committed: Path) -> None:
    assert generate.main(["--check", "--results", str(committed)]) == 0


def test_numbers_on_the_pages_are_those_of_metrics_json(committed: Path) -> None:
    """By another way than the generator's: straight from the files."""

    def mean(experiment: str, model: str, category: str, *keys: str) -> float:
        values = []
        for path in (committed / experiment / model / category).glob("seed*/metrics.json"):
            value = json.loads(path.read_text())
            for key in keys:
                value = value[key]
            values.append(float(value))  # type: ignore[arg-type]
        return sum(values) / len(values)

    readme = row("README.md", "overview", "CLGAN-RC")
    own = mean("restore_gpu", "clgan_rc", "metal_nut", "scores", "native", "image", "F1")
    dual = mean("restore_gpu", "clgan_rc", "bottle", "scores", "dual_threshold", "image", "F1")
    assert (readme[3], readme[7]) == (f"{dual:.1f}", f"{own:.1f}")
    assert row("README.md", "overview", "CLGAN, published")[3] == "*33.01*"  # the paper's Table 3
    calibrated = mean("mvtec_cpu", "dcgan", "bottle", "scores", "calibrated", "image", "F1")
    assert row("docs/results.md", "mvtec_cpu", "", "DCGAN", "*13.26*")[4].startswith(f"{calibrated:.1f}\u00a0±")
    scratch = mean("restore_gpu", "clgan_rc", "metal_nut", "defects", "scratch", "native", "F1")
    assert row("docs/restoring.md", "defects", "metal\\_nut", "scratch")[5] == f"{scratch:.1f}"


def test_a_changed_run_is_noticed_and_a_run_of_ones_own_is_not(
    generate: ModuleType, committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = committed / "restore_gpu/clgan_rc/bottle/seed0/metrics.json"
    content = json.loads(run.read_text())
    content["scores"]["native"]["image"]["F1"] = 1.0
    own = run.parents[1] / "seed7/metrics.json"
    own.parent.mkdir()
    own.write_text(json.dumps(content | {"config": content["config"] | {"seed": 7}}))
    assert generate.main(["--check", "--results", str(committed)]) == 0
    shutil.rmtree(own.parent)
    run.write_text(json.dumps(content))
    before = (ROOT / "README.md").read_bytes()
    assert generate.main(["--check", "--results", str(committed)]) == 1
    said = capsys.readouterr().out
    assert "README.md: out of date; make docs" in said and "docs/restoring.md" in said and "docs/results.md" not in said
    assert (ROOT / "README.md").read_bytes() == before


def test_an_unknown_table_is_named(generate: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table is called 'table9'; there are overview"):
        generate.filled("<!-- table: table9 -->\n<!-- end -->", tmp_path)
