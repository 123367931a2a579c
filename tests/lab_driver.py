"""A real JupyterLab in a real, headless Chromium: the fixtures and helpers of the browser tests.

The browser is the system's (Debian: ``apt install chromium``) or Playwright's own (``playwright install chromium``). Without
either these tests are skipped, and fail where the environment variable CI is set. Set CLGAN_SCREENSHOTS to a folder to keep
what the pages looked like.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from clgan_lib.paths import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the widgets are NOT tested")
TOKEN = "lab"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync".split()
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """One Chromium for all tests."""
    with sync_api.sync_playwright() as playwright:
        system = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            opened = playwright.chromium.launch(executable_path=system, args=FLAGS)
        except sync_api.Error as error:
            reason = "NO BROWSER, the widgets are NOT tested: apt install chromium, or playwright install chromium"
            if os.environ.get("CI"):
                pytest.fail(f"{reason} ({error})")
            pytest.skip(reason)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab on an empty folder, with settings of its own: its address and the folder."""
    base = tmp_path_factory.mktemp("lab")
    folder = base / "notebooks"
    folder.mkdir()
    settings = base / "config/lab/user-settings/@jupyterlab"
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    for name, values in {
        "apputils-extension/notification": quiet,
        "notebook-extension/tracker": {"windowingMode": "none"},  # every output is on the page, in view or not
    }.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        name: str(base / name.lower())
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "CLGAN_CACHE")
    }
    own |= {"JUPYTER_CONFIG_DIR": str(base / "config"), "OMP_NUM_THREADS": "1"}
    flags = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    flags += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    with open(base / "log", "wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *flags]
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/api/status?token={TOKEN}"), 60, lambda: (base / "log").read_text()[-2000:])
        yield address, folder
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def wait_for(happened: Callable[[], object], seconds: float, story: Callable[[], object] = lambda: "") -> None:
    """Wait until something is true; fail with a story where it never is."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds} s in vain. {story()}"
        time.sleep(0.05)


class Notebook:
    """A notebook open in Lab, all its cells run.

    Attributes:
        page: Playwright's page.
        errors: every error that the kernel or the page reported, callbacks' included.
    """

    def __init__(self, browser: object, lab: tuple[str, Path], notebook: nbformat.NotebookNode, name: str) -> None:
        address, folder = lab
        self.name, done = name, folder / f"{name}.done"
        notebook.cells.append(nbformat.v4.new_code_cell(f"open({str(done)!r}, 'w').close()"))
        nbformat.write(notebook, folder / f"{name}.ipynb")
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": 1440, "height": 1000})
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("websocket", lambda ws: ws.on("framereceived", self._listen))
        self.address = f"{address}/lab/tree/{name}.ipynb?token={TOKEN}&reset"
        self.open()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        wait_for(lambda: self.pump() or done.exists() or self.errors, 150)
        self.page.locator(".jupyter-widgets svg").first.wait_for(timeout=20_000)
        self.check()

    def open(self) -> None:
        """Open it, or open it again."""
        self.page.goto(self.address)
        self.page.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=60_000)

    def _listen(self, payload: bytes | str) -> None:
        """The kernel's messages to the page: the only place where every callback's error goes."""
        raw = payload if isinstance(payload, bytes) else payload.encode()
        if b'"msg_type": "error"' in raw or b'"msg_type":"error"' in raw:
            self.errors.append(raw[raw.find(b'"ename"') :][:400].decode(errors="replace"))

    def pump(self) -> None:
        """Let Playwright deliver what has come in."""
        self.page.wait_for_timeout(20)

    def check(self) -> None:
        """Fail if anything went wrong in the kernel, on the page, or in a widget."""
        self.pump()
        shown = self.page.locator(".clgan-error b").all_inner_texts()
        assert not self.errors and not shown, f"{self.name}: {self.errors} {shown}"

    def changes(self, selector: str, action: Callable[[], object]) -> float:
        """Do something and wait until the element's content is another: seconds that took."""
        before = self.page.locator(selector).first.inner_html()
        begin = time.monotonic()
        action()
        wait_for(
            lambda: self.pump() or self.page.locator(selector).first.inner_html() != before, 20, lambda: self.errors
        )
        return time.monotonic() - begin

    def idle(self) -> None:
        """Wait until the kernel has nothing left to do."""
        self.page.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=60_000)
        self.page.wait_for_timeout(300)

    def settle(self, selector: str) -> None:
        """Wait until the element's content stays the same for a second: several moves give several drawings."""
        seen = ""
        while seen != (seen := self.page.locator(selector).first.inner_html()):
            self.page.wait_for_timeout(1000)

    def press(self, slider: str, key: str, times: int = 1) -> None:
        """Move a slider, found by its label, from the keyboard."""
        handle = self.page.locator(".widget-slider", has_text=slider).first.locator(".noUi-handle")
        for _ in range(times):
            handle.press(key)

    def shoot(self, moment: str, at: str = ".jupyter-widgets svg") -> None:
        """Keep a screenshot if somebody wants to look."""
        if folder := os.environ.get("CLGAN_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.locator(at).first.scroll_into_view_if_needed()
            self.page.wait_for_timeout(300)
            self.page.screenshot(path=Path(folder) / f"{self.name}-{moment}.png")


@pytest.fixture
def open_notebook(browser: object, lab: tuple[str, Path]) -> Iterator[Callable[..., Notebook]]:
    """Opens notebooks, and closes them and their kernels at the end."""
    opened = []

    def open_one(notebook: nbformat.NotebookNode, name: str) -> Notebook:
        opened.append(Notebook(browser, lab, notebook, name))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.page.close()
    stop_kernels(lab)


def stop_kernels(lab: tuple[str, Path]) -> None:
    """Stop all kernels of a JupyterLab."""
    base = f"{lab[0]}/api/kernels"
    with urllib.request.urlopen(f"{base}?token={TOKEN}") as reply:
        kernels = json.load(reply)
    for kernel in kernels:
        urllib.request.urlopen(urllib.request.Request(f"{base}/{kernel['id']}?token={TOKEN}", method="DELETE"))


def lesson(name: str, upto: str = "", **parameters: object) -> nbformat.NotebookNode:
    """A copy of a lesson with other parameters, cut after the first cell that holds `upto`."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    for number, cell in enumerate(notebook.cells):
        if "parameters" in cell.metadata.get("tags", []):
            known = {line.partition(":")[0] for line in cell.source.splitlines()}
            assert set(parameters) <= known, f"{name} has no {set(parameters) - known}"
            cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
        if upto and cell.cell_type == "code" and upto in cell.source:
            notebook.cells = notebook.cells[: number + 1]
            break
    return notebook
