"""CITATION.cff: version 1.2 of the format, and the same facts as the project's other files."""

import re
import tomllib
from datetime import date

import yaml

from clgan_lib.paths import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))


def test_it_has_what_the_format_asks_for() -> None:
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    allowed = "cff-version message type title abstract authors version license keywords references"
    assert set(CITATION) <= set(allowed.split())
    assert all(isinstance(CITATION[key], str) for key in ("message", "title", "abstract", "version", "license"))
    for authors in (entry["authors"] for entry in (CITATION, *CITATION["references"])):
        assert authors and all(set(a) in ({"name"}, {"family-names", "given-names"}) for a in authors)
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert isinstance(reference["year"], int) and reference["year"] <= date.today().year
        assert re.fullmatch(r"10\.\d{4,9}/\S+", reference["doi"])


def test_software_agrees_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CITATION["version"] == project["version"] and CITATION["license"] == project["license"]


def test_the_paper_is_the_one_that_the_pages_cite() -> None:
    (paper,) = CITATION["references"]
    names = [f"{a['family-names']} {a['given-names']}" for a in paper["authors"]]
    cited = (ROOT / "docs/paper.md").read_text(encoding="utf8")
    assert f"{', '.join(names)}: *{paper['title']}*. {paper['journal']} {paper['volume']}({paper['issue']})" in cited
    assert f"{paper['start']}, {paper['year']}. DOI {paper['doi']}" in cited
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert paper["doi"] in readme and paper["title"] in readme
