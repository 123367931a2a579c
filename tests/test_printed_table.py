"""A printed table as Markdown, LaTeX and HTML: escapes, rules, and whether LaTeX compiles it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from fake_runs import fake_experiment

from clgan_lib.exhibits import tables
from clgan_lib.render.table import Cell, Row, Table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_experiment(tmp_path_factory.mktemp("results"))


NASTY = Table(
    "nasty",
    "100 % of <b> & $x_1$",
    ["a|b", "±"],
    [Row([Cell("x\\y~^{}", "label"), Cell("−1 ± 2 é", "best")])],
    source="#1",
)


def test_text_is_escaped_for_each_format() -> None:
    assert "| a\\|b | ± |" in NASTY.markdown() and "<b>" not in NASTY.markdown()
    assert (
        r"100 \% of \textless{}b\textgreater{} \& \$x\_1\$" in NASTY.latex()
        and r"\textbf{$-$1 $\pm$ 2 ?}" in NASTY.latex()
    )
    assert "&lt;b&gt; &amp;" in NASTY.html() and "<b>" not in NASTY.html()


def test_latex_has_its_columns_and_rules(root: Path) -> None:
    text = tables.table3(tables.collect(root, "fake"), paper=tables.published()).latex()
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {
        len("metric model bottle metal_nut mean".split()) - 1
    }
    assert text.count(r"\midrule") == 6 and all(text.count(rule) == 1 for rule in (r"\toprule", r"\bottomrule"))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs a LaTeX")
def test_latex_compiles_alone_and_as_input(root: Path, tmp_path: Path) -> None:
    tables.table3(tables.collect(root, "fake"), paper=tables.published()).write(tmp_path)
    NASTY.write(tmp_path)
    packages = r"\documentclass{article}\usepackage{booktabs,longtable}"
    (tmp_path / "whole.tex").write_text(packages + r"\begin{document}\input{table3}\input{nasty} end\end{document}")
    for name in ("table3", "nasty", "whole"):
        subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", name], cwd=tmp_path, check=True)
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000
