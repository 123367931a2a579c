"""What Python puts on the page on which one paints a defect; `test_page_browser.py` opens it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from test_export import learn

from clgan_lib.interop import cli, page

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a small model of it, and a folder in the place of onnxruntime-web's."""
    root = tmp_path_factory.mktemp("page")
    learn("clgan_rc", root).rename(root / "run")
    (root / "package/dist").mkdir(parents=True)
    for number, name in enumerate(page._FILES.values()):
        (root / "package/dist" / name).write_bytes(bytes([number]) * 1000)
    return root


def payload(text: str, name: str) -> bytes:
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', text)
    assert found
    return gzip.decompress(base64.b64decode(found[1]))


def test_the_page_holds_runtime_model_and_examples(root: Path) -> None:
    out = root / "a b/# page.html"
    out.parent.mkdir()
    assert page.write_page(root / "run", out, data=str(root), runtime=root / "package") == 4  # two good, dent, rust
    text = out.read_text(encoding="utf8")
    assert payload(text, "runtime") == bytes(1000) and payload(text, "wasm") == b"\1" * 1000
    assert not re.search(r'(src|href)="(?!data:)', text) and "default-src 'none'" in text
    facts = json.loads(text.partition('id="facts">')[2].partition("</script>")[0])
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="">([a-z]+)<', text)
    assert [name for _, name in shown] == ["good", "good", "dent", "rust"]
    session = onnxruntime.InferenceSession(payload(text, "model"), providers=["CPUExecutionProvider"])
    for (encoded, _), stored in zip(shown, facts["examples"], strict=True):
        image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR_RGB)
        pixels = (image.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
        scores = session.run(["anomaly_map"], {"images": pixels})[0][0]
        steps = np.frombuffer(gzip.decompress(base64.b64decode(stored["map"])), "<u2").reshape(scores.shape)
        np.testing.assert_allclose(steps * stored["score"] / 65535, scores, atol=1e-4 * stored["score"])
        truth = base64.b64decode(stored["truth"].partition(",")[2])
        assert set(np.unique(cv2.imdecode(np.frombuffer(truth, np.uint8), 0))) <= {0, 255}


def test_without_a_data_set_there_are_no_examples(root: Path, capsys: Capture) -> None:
    weights, out = str(root / "run/weights.safetensors"), str(root / "none.html")
    assert cli.main(["page", weights, out, "--runtime", str(root / "package/dist")]) == 0
    assert capsys.readouterr().out.endswith("MB, 0 examples\n") and "<img" not in Path(out).read_text(encoding="utf8")


@pytest.mark.parametrize(("option", "words"), [("--runtime", "lacks them"), ("PATH", "No such file")])
def test_what_is_missing_is_named_with_its_remedy(
    root: Path, option: str, words: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", "")
    runtime = ["--runtime", str(root)] if option == "--runtime" else []
    assert cli.main(["page", str(root / "run"), str(tmp_path / "out.html"), *runtime]) == 2
    told = capsys.readouterr().err
    assert words in told and "install Node.js with npm, or unpack https://registry.npmjs.org/" in told
    assert told.count("\n") == 1 and not (tmp_path / "out.html").exists()
