"""A trained model as one ONNX file, compared with PyTorch before it gets its name. `clgan export RUN FILE.onnx`

Input ``images``: float32 ``(B, 3, 256, 256)``, RGB in [-1, 1], any B. Outputs: ``reconstruction`` of the same shape,
``anomaly_map`` ``(B, 256, 256)``, and ``mask``, bool, where the map exceeds `Inspector.threshold`. They are those of
`clgan_lib.interop.inspection`, which also resizes to the model's own size. Thresholds, sizes and provenance are in the
metadata. Needs the extra `export`: ``pip install -e ".[export]"``.
"""

from __future__ import annotations

import logging
import warnings
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
from clgan_lib.runs.evaluation import SIZE, resize
from clgan_lib.runs.folder import first_line, writing

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_OUTPUTS = ("reconstruction", "anomaly_map", "mask")
_TOLERANCE = 1e-3  # of the range; another order of rounding makes a hundredth of it


class _Graph(nn.Module):
    """From images at 256x256 to the three outputs at 256x256."""

    def __init__(self, model: ReconstructionModel, threshold: float) -> None:
        super().__init__()
        self.model, self.threshold = model, threshold

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small = resize(images, self.model.image_size, antialias=True)
        reconstruction = self.model.reconstruct(small)
        scores = resize(self.model.anomaly_map(small, reconstruction).float()[:, None])[:, 0]
        return resize(reconstruction), scores, scores > self.threshold


def export(run: str | Path | Inspector, file: str | Path) -> dict[str, float]:
    """Write a trained model as ONNX, whole or not at all.

    Args:
        run: run folder, weights file, or an inspector from `clgan_lib.interop.inspection.load`.
        file: to write.

    Returns:
        By output, the largest absolute difference between onnxruntime and PyTorch on random images. The map's is relative to
        its largest value, the mask's is the share of pixels that differ.

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
    graph = _Graph(inspector.model.cpu().eval(), inspector.threshold).eval()
    proto = _trace(graph, inspector.card.config.model)
    for node in proto.graph.node:
        del node.metadata_props[:]  # where in the code it was traced: a fifth of a small model's file
    onnx.helper.set_model_props(proto, metadata(inspector))
    file = Path(file)
    with writing(file.parent, "choose another place"), replacing(file) as part:
        part.write_bytes(proto.SerializeToString())
        differences = _compare(graph, onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"]))
        wrong = {name: value for name, value in differences.items() if not value <= _TOLERANCE}
        if wrong:
            name = inspector.card.config.model
            raise ValueError(f"{name}: the ONNX file computes something else: {wrong}; not written")
    return differences


def _trace(graph: _Graph, name: str) -> onnx.ModelProto:
    """The graph with its weights, for any number of images.

    Raises:
        ValueError: in one line, if the model does what a graph cannot.
    """
    example = torch.zeros(2, 3, SIZE, SIZE)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    logging.disable(logging.WARNING)  # one line below names what cannot be exported
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            program = torch.onnx.export(graph, (example,), dynamic_shapes=shapes, input_names=["images"],
                                        output_names=_OUTPUTS, verbose=False)  # fmt: skip
        return program.model_proto  # type: ignore[union-attr]
    except Exception as error:  # the exporter may raise anything
        cause = first_line(error.__cause__ or error)
        reason = f"it is no fixed sequence of operations ({cause})"
        raise ValueError(f"{name} cannot be exported to ONNX: {reason}") from None
    finally:
        logging.disable(logging.NOTSET)


def metadata(inspector: Inspector) -> dict[str, str]:
    """The metadata of the file: thresholds, sizes, value range and provenance."""
    card = inspector.card
    content = {
        "model": card.config.model, "category": card.config.category, "commit": card.commit, "image_size": SIZE,
        "model_image_size": card.config.image_size, "value_range": "-1 1", "channels": "RGB",
        "threshold": inspector.threshold, "image_threshold": inspector.image_threshold, "image_rule": inspector.rule,
        "card": card.text(),
    }  # fmt: skip
    return {name: str(value) for name, value in content.items()}


def _compare(graph: _Graph, session: onnxruntime.InferenceSession) -> dict[str, float]:
    """The differences that `export` returns, over batches of one and three random images.

    Their noise grows from left to right, so that their scores lie on both sides of a threshold.
    """
    generator = torch.Generator().manual_seed(0)
    strength = torch.linspace(0, 1, SIZE)
    differences = dict.fromkeys(_OUTPUTS, 0.0)
    for count in (1, 3):
        images = (torch.rand(count, 3, SIZE, SIZE, generator=generator) * 2 - 1) * strength
        with torch.no_grad():
            expected = [value.float().numpy() for value in graph(images)]
        outputs = session.run(list(_OUTPUTS), {"images": images.numpy()})
        for name, ours, theirs in zip(_OUTPUTS, expected, outputs, strict=True):
            difference = np.abs(ours - theirs.astype(np.float32))
            if name == "anomaly_map":
                difference /= max(float(ours.max()), 1e-9)
            value = float(difference.mean() if name == "mask" else difference.max())
            differences[name] = max(differences[name], value)
    return differences
