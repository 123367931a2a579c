"""Run the notebooks that are read and keep their outputs, so that a page of a code host or of the book shows them.

``python docs/refresh_notebooks.py [NAME ...]`` after an edit to one; without a name, all of `READ`. Cells whose outputs are
kept get the tag `keep_output`. What `COMPARED` prints is held by a test, digit by digit, and so are the
findings of 22; the rest is only run.
"""

import base64
import copy
import io
import shutil
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
READ = ("00_start_here", "01_dataset", "02_losses", "03_networks", "22_paper_audit")
COMPARED = ("02_losses",)
LIMIT = 300_000  # bytes a notebook
WIDTHS = (900, 760, 640, 520)  # pixels of its pictures, the first that keeps to the limit
PANE = 900  # pixels on the screen of those that are as wide: their words keep their size


def smaller(png: str, width: int) -> tuple[str, str, int]:
    """A PNG in base64 at most that wide, as a PNG of 64 colours or, where it is mostly a photograph, as a JPEG.

    Returns:
        Its type, its content in base64, and how wide it is to be shown.
    """
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    shown = min(image.width, PANE)
    image.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
    chart, photograph = io.BytesIO(), io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(chart, "PNG", optimize=True)
    image.save(photograph, "JPEG", quality=50, optimize=True)
    kind, kept = ("png", chart) if chart.tell() < 1.4 * photograph.tell() else ("jpeg", photograph)
    return f"image/{kind}", base64.b64encode(kept.getvalue()).decode(), shown


def as_png(svg: str) -> str:
    """An SVG as a browser shows it: in a notebook that one did not run oneself, JupyterLab shows no SVG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": PANE + 20, "height": 1000})
        page.set_content(svg)
        return base64.b64encode(page.locator("svg").first.screenshot()).decode()


def shown(output: nbformat.NotebookNode, width: int) -> nbformat.NotebookNode | None:
    """An output as it is kept, or nothing: a widget needs its kernel, and a progress bar is over."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data or "clgan-still" in data.get("text/html", ""):
        return None
    if "image/svg+xml" in data:
        data.pop("text/html", None)
        data["image/png"] = as_png(data.pop("image/svg+xml"))
    if "image/png" in data:
        kind, data[kind], wide = smaller(data.pop("image/png"), width)
        output.metadata = {kind: {"width": wide}}
    if output.output_type == "execute_result":
        output.execution_count = None
    return output


def keep(cell: nbformat.NotebookNode, compared: bool, width: int) -> None:
    """Leave in a cell what is shown of it, and tag it."""
    cell.metadata.pop("execution", None)
    tags = [tag for tag in cell.metadata.pop("tags", []) if tag not in ("keep_output", "nbval-ignore-output")]
    cell.outputs = (
        [] if "exercises.check(" in cell.source else [o for o in (shown(o, width) for o in cell.outputs) if o]
    )
    cell.execution_count = cell.execution_count if cell.outputs else None
    if cell.outputs:
        text = all(output.output_type == "stream" for output in cell.outputs)
        tags += ["keep_output"] if compared and text else ["keep_output", "nbval-ignore-output"]
    if tags:
        cell.metadata["tags"] = tags


def refresh(name: str) -> int:
    """Run a notebook from a fresh kernel, write it with its outputs, and return its size in bytes."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    executed = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        executed, timeout=900, kernel_name="python3", store_widget_state=False, resources=resources
    ).execute()
    executed.metadata["language_info"] = {"name": "python"}
    for width in WIDTHS:
        notebook = copy.deepcopy(executed)
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            keep(cell, name in COMPARED, width)
        nbformat.write(notebook, path)
        if path.stat().st_size <= LIMIT:
            break
    return path.stat().st_size


if __name__ == "__main__":
    for each in sys.argv[1:] or READ:
        print(f"{each}: {refresh(each) / 1000:.0f} kB", flush=True)
