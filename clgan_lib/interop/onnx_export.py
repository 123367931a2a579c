"""A trained model as one ONNX file, checked against PyTorch before it gets its name.

    python -m clgan_lib.interop.onnx_export RUN FILE.onnx

Input ``images``, float32 ``(B, 3, 256, 256)``, RGB in [-1, 1], any B; outputs ``reconstruction`` of the same shape,
``anomaly_map`` ``(B, 256, 256)``, and ``mask``, bool, where the map exceeds `Inspector.threshold`. The same as
`clgan_lib.interop.inspection` computes, the reduction to the model's own size included. Thresholds, sizes and provenance are
in the file's metadata. Needs the extra `export`: ``pip install -e ".[export]"``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from clgan_lib.interop.inspection import Inspector, load
from clgan_lib.model import ReconstructionModel
from clgan_lib.paths import replacing
from clgan_lib.runs.evaluation import SIZE, enlarge, reduce
from clgan_lib.runs.folder import first_line, writing

if TYPE_CHECKING:
    import onnx
    import onnxruntime

OUTPUTS = ("reconstruction", "anomaly_map", "mask")
TOLERANCE = 1e-3  # of the range; what rounding in another order leaves is a hundredth of it


class Graph(nn.Module):
    """From images at 256 to a model's answers at 256; see the top of the file."""

    def __init__(self, model: ReconstructionModel, threshold: float) -> None:
        super().__init__()
        self.model, self.threshold = model, threshold

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small = reduce(images, self.model.image_size)
        redrawn = self.model.reconstruct(small)
        scores = enlarge(self.model.anomaly_map(small, redrawn).float()[:, None])[:, 0]
        return enlarge(redrawn), scores, scores > self.threshold


def export(run: str | Path | Inspector, file: str | Path) -> dict[str, float]:
    """Write a trained model as ONNX, whole or not at all.

    Args:
        run: run folder, weights file, or what `clgan_lib.interop.inspection.load` returned.
        file: to write.

    Returns:
        By output, the largest absolute difference between onnxruntime and PyTorch on random images; the map's in shares of
        its largest value, the mask's as the share of pixels that differ.

    Raises:
        ModuleNotFoundError: if the extra `export` is not installed.
        ValueError: if the model cannot be exported, or the file computes something else than the model.
        OSError: if the file cannot be written.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter writes with it)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; pip install -e '.[export]'") from None
    inspector = run if isinstance(run, Inspector) else load(run, "cpu")
    graph = Graph(inspector.model.cpu().eval(), inspector.threshold).eval()
    proto = _trace(graph, inspector.card.config.model)
    onnx.helper.set_model_props(proto, metadata(inspector))
    file = Path(file)
    with writing(file.parent, "choose another place"), replacing(file) as part:
        part.write_bytes(proto.SerializeToString())
        found = compare(graph, onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"]))
        wrong = {name: value for name, value in found.items() if not value <= TOLERANCE}
        if wrong:
            raise ValueError(
                f"{inspector.card.config.model}: the ONNX file computes something else: {wrong}; not written"
            )
    return found


def _trace(graph: Graph, name: str) -> onnx.ModelProto:
    """The graph with its weights, for any number of images.

    Raises:
        ValueError: in one line, if the model does what a graph cannot.
    """
    example = torch.zeros(2, 3, SIZE, SIZE)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    logging.disable(logging.WARNING)  # what cannot be exported is said in one line below, not in pages
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            program = torch.onnx.export(graph, (example,), dynamic_shapes=shapes, input_names=["images"],
                                        output_names=OUTPUTS, verbose=False)  # fmt: skip
        return program.model_proto  # type: ignore[union-attr]
    except Exception as error:  # whatever the exporter meets
        cause = first_line(error.__cause__ or error)
        raise ValueError(
            f"{name} cannot be exported to ONNX: it is no fixed sequence of operations ({cause})"
        ) from None
    finally:
        logging.disable(logging.NOTSET)


def metadata(inspector: Inspector) -> dict[str, str]:
    """What travels in the file: all that is needed to use it."""
    card = inspector.card
    content = {
        "model": card.config.model, "category": card.config.category, "commit": card.commit, "image_size": SIZE,
        "model_image_size": card.config.image_size, "value_range": "-1 1", "channels": "RGB",
        "threshold": inspector.threshold, "image_threshold": inspector.image_threshold, "image_rule": inspector.rule,
    }  # fmt: skip
    return {name: str(value) for name, value in content.items()}


def compare(graph: Graph, session: onnxruntime.InferenceSession) -> dict[str, float]:
    """The differences that `export` returns, over batches of one and three random images.

    Their noise grows from left to right, so that their scores lie on both sides of a threshold.
    """
    generator = torch.Generator().manual_seed(0)
    strength = torch.linspace(0, 1, SIZE)
    found = dict.fromkeys(OUTPUTS, 0.0)
    for count in (1, 3):
        images = (torch.rand(count, 3, SIZE, SIZE, generator=generator) * 2 - 1) * strength
        with torch.no_grad():
            wanted = [value.float().numpy() for value in graph(images)]
        got = session.run(list(OUTPUTS), {"images": images.numpy()})
        for name, ours, theirs in zip(OUTPUTS, wanted, got, strict=True):
            difference = np.abs(ours - theirs.astype(np.float32))
            if name == "anomaly_map":
                difference /= max(float(ours.max()), 1e-9)
            found[name] = max(found[name], float(difference.mean() if name == "mask" else difference.max()))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m clgan_lib.interop.onnx_export", description="A trained model as one ONNX file."
    )
    parser.add_argument("run", help="run folder or weights.safetensors")
    parser.add_argument("file", help="the .onnx file to write")
    given = parser.parse_args(arguments)
    try:
        found = export(given.run, given.file)
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.file}: " + ", ".join(f"{name} differs by at most {value:.1g}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
