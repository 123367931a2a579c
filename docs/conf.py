"""Settings of the book, which `make book` builds in build/book/ from docs/, notebooks/ and the docstrings.

Sphinx's source folder is the repository's root, so that links between pages work here, on a code host and in the book. No
page asks the network for anything: equations are MathML, which browsers draw themselves.
"""

import re
import shutil
import sys
import tomllib
from html import escape
from pathlib import Path
from textwrap import indent

import ziamath
from docutils import nodes
from fontTools import subset
from latex2mathml.converter import convert
from sphinx.ext import autosummary

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clgan_lib.exhibits import index  # noqa: E402

project = "CLGAN benchmark suite"
author = "The CLGAN benchmark suite's authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/api/*", "notebooks/*.ipynb", "benchmarks/README.md"]
exclude_patterns = [".*", "build", "data", "results", "tests", "**/.ipynb_checkpoints"]
templates_path = [str(ROOT / "docs/_templates")]

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "friendly", "github-dark"

# Notebooks are shown with the outputs that they have: those of git, or those that `make book` has just run.
nb_execution_mode = "off"
# The default would load scripts for widgets from the network; without a kernel they do nothing anyway.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_merge_streams = True
nb_render_image_options = {"alt": "output of the cell above"}
myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 4
# `site:` leads to a file that is copied as it is.
myst_url_schemes = {"http": None, "https": None, "mailto": None, "site": "../{{path}}"}

# Docstrings: Google style with Markdown's equations and single backticks for names.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
napoleon_use_ivar = True
python_use_unqualified_type_names = True
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.", "Fig.")  # a summary does not end there

# Pages that are whole in one file: reports of experiments, and a model that runs in the browser (`make page`).
REPORTS = sorted((ROOT / "results").glob("*/report.html"))
MODEL_PAGES = sorted((ROOT / "results").glob("*/page.html"))


def list_reports() -> str:
    """The page that compares experiments, and the reports that are there, each with the title of its experiment."""
    lines = ["* [All experiments compared](site:results/index.html)"]
    for name in (report.parent.name for report in REPORTS):
        lines.append(f"* [{index.title(name)}](site:results/{name}/report.html) (`{name}`)")
    lines += [
        f"* [A model that runs in your browser](site:{page.relative_to(ROOT).as_posix()})" for page in MODEL_PAGES
    ]
    return "\n".join(lines)


myst_substitutions = {"reports": list_reports()}


def book_link(match: re.Match[str]) -> str:
    """A link of the sources as the book has it: code to its API page, a report to its copy, a folder to its name."""
    text, path = match.groups()
    if path.startswith("clgan_lib/") and path.endswith(".py"):
        return f"[{text}](/docs/api/{path.removesuffix('.py').replace('/', '.')}.rst)"
    if path.startswith("results/") and path.endswith((".html", ".md")):
        return f"[{text}](site:{path})"
    return f"{text} (`{path}`)" if (ROOT / path).is_dir() and text.strip("`") != path else match[0]


def quotable_table(match: re.Match[str]) -> str:
    """A table that `make docs` wrote, with an anchor, its data and the command."""
    name, block = match.groups()
    first = name.partition("_")[0]
    places = [f"results/{name}/tables/{table}.csv" for table in dict.fromkeys(("table3", name))]
    places += [f"results/{first}/{first}.csv", f"docs/{name}.csv", f"benchmarks/{name}.csv"]
    data = "".join(f" · [{place}](site:{place})" for place in places if (ROOT / place).exists())
    return f"(table-{name})=\n\n{block.strip()}\n\n*[#table-{name}](#table-{name}){data} · made by `make docs`*\n"


def quotable_figure(match: re.Match[str]) -> str:
    """A figure of an experiment, with an anchor, its report, which has its data, and the command."""
    anchor, report = f"figure-{match[1]}-{match[2]}", f"results/{match[1]}/report.html"
    made = f"[{report}](site:{report}) · made by `make report EXPERIMENT={match[1]}`"
    return f"({anchor})=\n\n{match[0]}\n\n*[#{anchor}](#{anchor}) · {made}*\n"


def prepare_source(app, docname: str, source: list[str]) -> None:
    """Take the executed notebook where one has been made, and point the links at the book."""
    executed = ROOT / "build" / f"{docname}.ipynb"
    if docname.startswith("notebooks/") and executed.exists():
        source[0] = executed.read_text(encoding="utf8")
    text = re.sub(r"\[([^\]\n]+)\]\(\.\./([^)#\s]+)\)", book_link, source[0])
    text = text.replace("```mermaid", "```text")  # its drawing program would come from the network
    if docname.startswith("docs/"):
        text = re.sub(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", quotable_table, text, flags=re.S)
        text = re.sub(r"^!\[[^\]]+\]\(\.\./results/(\w+)/figures/(\w+)\.\w+\)$", quotable_figure, text, flags=re.M)
    source[0] = text


def find_executed(app, env, added, changed, removed) -> list[str]:
    """The pages of executed notebooks, which Sphinx would take for unchanged."""
    return [f"notebooks/{path.stem}" for path in (ROOT / "build/notebooks").glob("*.ipynb")]


def prepare_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Markdown's equations and code blocks in reStructuredText."""
    text = re.sub(r" \\quad \((\d+)\) \$\$", r" \\tag{\1} $$", "\n".join(lines))
    block = re.compile(r"^```(\w+)\n(.+?)^```$", re.M | re.S)
    text = block.sub(lambda m: f".. code-block:: {m[1]}\n\n{indent(m[2], '   ')}", text)
    text = re.sub(r"^( *)\$\$(.+?)\$\$", r"\n\1.. math:: \2\n", text, flags=re.M | re.S)
    lines[:] = re.sub(r"\$([^$]+?)\$", r":math:`\1`", text).split("\n")


# TeX's thin space on both sides of an operator's name, which `latex2mathml` leaves out
THIN = r'<mspace width="0.167em"/><mi>\1</mi><mspace width="0.167em"/>'


def mathml(latex: str, display: str) -> str:
    r"""MathML of an equation; the number of its ``\tag`` stands at the right."""
    tag = re.search(r"\\tag\{(.*?)\}", latex)
    body = convert(latex.replace(tag[0], "") if tag else latex, display=display)
    body = re.sub(r"<mi>(log|exp|max|min)</mi>(?!<mo stretchy=\"false\">&#x00028;)", THIN, body)
    body = body.replace("<math ", f'<math aria-label="{escape(latex.strip())}" ')
    number = f'<span class="eqno">({escape(tag[1])})</span>' if tag else ""
    return f'<div class="math">{number}{body}</div>' if display == "block" else body


def visit_math(self, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_math_block(self, node: nodes.math_block) -> None:
    self.body.append(mathml(node.astext(), "block"))
    raise nodes.SkipNode


def write_math_font(path: Path) -> None:
    """STIX Two Math (SIL Open Font License), as the package ziamath has it, without the scripts that no equation uses.

    Without a mathematical font a browser sets subscripts on the line; most machines have none.
    """
    ranges = ((0x20, 0x180), (0x370, 0x400), (0x2010, 0x2070), (0x2100, 0x2400), (0x27C0, 0x2A00), (0x1D434, 0x1D468))
    options = subset.Options(flavor="woff")
    font = subset.load_font(str(Path(ziamath.__file__).parent / "fonts/STIXTwoMath-Regular.ttf"), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(
        unicodes=[*(code for start, end in ranges for code in range(start, end)), *range(0x1D6A4, 0x1D6E2)]
    )
    subsetter.subset(font)
    subset.save_font(font, str(path), options)


def copy_results(app, exception: Exception | None) -> None:
    """Reports, tables and data beside the pages, the page over all experiments, and one that leads to the home page."""
    out = Path(app.outdir)
    if exception or app.builder.name != "html":
        return
    results = ROOT / "results"
    tables = (file for pattern in ("*/tables/*.md", "*/tables/*.csv", "*/*.csv") for file in results.glob(pattern))
    for file in [*REPORTS, *MODEL_PAGES, *tables, *ROOT.glob("docs/*.csv"), *ROOT.glob("benchmarks/*.csv")]:
        target = out / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    index.write(results, out / "results/index.html")
    write_math_font(out / "_static/math.woff")
    home = app.builder.get_target_uri(root_doc)
    refresh = f'<meta http-equiv="refresh" content="0; url={home}">'
    (out / "index.html").write_text(f"<!doctype html>{refresh}<title>{project}</title>", encoding="utf8")


def setup(app) -> None:
    app.connect("env-get-outdated", find_executed)
    app.connect("source-read", prepare_source)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)  # before napoleon
    app.connect("build-finished", copy_results)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
