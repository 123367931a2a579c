"""A trained model as one HTML page: one paints a defect and sees the prediction. `clgan page RUN OUT.html`

The page opens from ``file://`` and needs no network. It holds the ONNX file of `clgan_lib.interop.onnx_export`, the runtime
onnxruntime-web, and test images with their predictions by onnxruntime in Python, which it shows first.
"""

import base64
import gzip
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import cv2
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from clgan_lib.data import load_category, to_float, to_uint8
from clgan_lib.exhibits.run_table import display
from clgan_lib.interop import onnx_export
from clgan_lib.interop.inspection import load
from clgan_lib.paths import CACHE, replacing
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE
from clgan_lib.runs.execution import data_root
from clgan_lib.runs.folder import first_line, writing
from clgan_lib.runs.record import read_record

RUNTIME, VERSION = "onnxruntime-web", "1.30.0"
_FILES = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
_HERE = Path(__file__).parent
_MOST = 12  # examples: a page that is passed on shows no more of somebody's data set


def write_page(run: str | Path, file: str | Path, *, data: str = "", runtime: str | Path = "") -> int:
    """Write the page, whole or not at all; returns the number of examples.

    Args:
        run: run folder, or weights file.
        file: HTML to write.
        data: root of a data set. Two of its good test images and one of each defect type become examples. Empty: that of the
            run's ``metrics.json``; without one there are no examples.
        runtime: see `runtime_files`.

    Raises:
        FileNotFoundError: if the run, the data or the runtime is missing.
        ModuleNotFoundError, ValueError: from `onnx_export.export`.
        OSError: if the file cannot be written.
    """
    run, file, inspector = Path(run), Path(file), load(run, "cpu")
    parts = {name: path.read_bytes() for name, path in runtime_files(runtime).items()}
    record = (run if run.is_dir() else run.parent) / "metrics.json"
    config = read_record(record.parent).run_config() if record.is_file() else inspector.card.config
    config = config.model_copy(update={"embedded_train": 2} | ({"data_root": data} if data else {}))  # no training
    with tempfile.TemporaryDirectory() as scratch:
        onnx_export.export(inspector, Path(scratch, "model.onnx"))
        parts["model"] = Path(scratch, "model.onnx").read_bytes()
    examples = _examples(config, parts["model"]) if data or record.is_file() else []
    stored = [{name: example.pop(name) for name in ("map", "score", "reconstruction", "truth")} for example in examples]
    facts = {"threshold": inspector.threshold, "image_threshold": inspector.image_threshold, "examples": stored}
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("page.html.j2").render(
        name=f"{display(config.model)} on {config.category}", card=inspector.card, rule=inspector.rule, examples=examples,
        data=Path(config.data_root).name or "the embedded data", runtime=f"{RUNTIME} {VERSION}",
        payloads={name: _packed(part) for name, part in parts.items()},
        facts=Markup(json.dumps(facts).replace("<", r"\u003c")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf8")),
    )  # fmt: skip
    with writing(file.parent, "choose another place"), replacing(file) as part:
        part.write_text(page, encoding="utf8")
    return len(examples)


def runtime_files(folder: str | Path = "") -> dict[str, Path]:
    """The two files of the runtime: in `folder` or its ``dist``; without a folder in the cache, which npm fills.

    Raises:
        FileNotFoundError: saying how to get them.
    """
    place, reason = Path(folder) if folder else CACHE / f"{RUNTIME}-{VERSION}", "the folder lacks them"
    if not folder and not (place / _FILES["wasm"]).is_file():
        reason = _download(place)
    for each in (place, place / "dist"):
        files = {name: each / file for name, file in _FILES.items()}
        if all(path.is_file() for path in files.values()):
            return files
    what = f"{place}: {' and '.join(_FILES.values())} of {RUNTIME} {VERSION} are needed ({reason})"
    address = f"https://registry.npmjs.org/{RUNTIME}/-/{RUNTIME}-{VERSION}.tgz"
    raise FileNotFoundError(f"{what}; install Node.js with npm, or unpack {address} and give --runtime package/dist")


def _download(place: Path) -> str:
    """Take the files from npm, as this machine has it set up; returns what went wrong."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            npm = [shutil.which("npm") or "npm", "pack", f"{RUNTIME}@{VERSION}", "--silent", "--fetch-retries=1"]
            subprocess.run(npm, cwd=scratch, check=True, capture_output=True, timeout=600)
            place.mkdir(parents=True, exist_ok=True)
            with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
                for name in _FILES.values():
                    archive.extract(f"package/dist/{name}", scratch, filter="data")
                    with replacing(place / name) as part:
                        shutil.copy(Path(scratch, "package/dist", name), part)
    except (OSError, subprocess.SubprocessError, StopIteration, KeyError, tarfile.TarError) as error:
        return first_line(error)
    return ""


def _examples(config: RunConfig, model: bytes) -> list[dict[str, Any]]:
    """Image, truth and predictions of the test images that `write_page` chooses; left-out types are not shown."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    category = load_category(data_root(config), config.category, SIZE, config.bit_depth)
    chosen: list[int] = []
    for defect in dict.fromkeys(("good", *category.defects)):
        numbers = [i for i, name in enumerate(category.defects) if name == defect and name not in config.leave_out]
        chosen += numbers[: 2 if defect == "good" else 1]
    examples = []
    for i in chosen[:_MOST]:
        reconstruction, scores, _ = session.run(None, {"images": to_float(category.test[i : i + 1]).numpy()})
        highest = float(scores.max())
        steps = (scores / max(highest, 1e-9) * 65535).round().astype("<u2")  # half the bytes of float32
        example = {"defect": category.defects[i], "map": _packed(steps.tobytes()), "score": highest}
        pictures = {"image": category.test[i], "reconstruction": to_uint8(torch.from_numpy(reconstruction[0]))}
        pictures["truth"] = category.masks[i : i + 1].byte() * 255
        examples.append(example | {name: _address(pixels.numpy()) for name, pixels in pictures.items()})
    return examples


def _packed(content: bytes) -> str:
    """gzip, as base64: what the page's `unpack` reads."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _address(pixels: NDArray[Any]) -> str:
    """A picture, uint8 ``(1 or 3, H, W)``, as a PNG in a data address."""
    png = cv2.imencode(".png", pixels[::-1].transpose(1, 2, 0))[1]
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
