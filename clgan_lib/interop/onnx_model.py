"""An ONNX file of `clgan_lib.interop.onnx_export` in place of a model: images in, anomaly maps out, without its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clgan_lib.model import ReconstructionModel
from clgan_lib.runs.evaluation import SIZE
from clgan_lib.runs.folder import first_line
from clgan_lib.runs.weights import Card


class OnnxModel(ReconstructionModel):
    """The outputs of a session of onnxruntime; the graph has the model's own size inside, and 256 outside.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        threshold: of the masks.
    """

    trainable = False

    def __init__(self, session: Any, threshold: float) -> None:
        super().__init__(image_size=SIZE)
        self.session, self.threshold = session, threshold

    def _output(self, name: str, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run([name], {"images": images.numpy()})[0])

    def reconstruct(self, images: Tensor) -> Tensor:
        return self._output("reconstruction", images)

    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        """The map of the images alone: the graph has its own reconstructions."""
        return self._output("anomaly_map", images)

    def map_threshold(self) -> float:
        """The threshold that the file was exported with."""
        return self.threshold


def read_onnx(path: Path) -> tuple[OnnxModel, Card]:
    """Model and card of a file; each thread that calls the model works on its own, with one thread of onnxruntime.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: if the extra `export` is not installed.
        ValueError: naming the file that is damaged or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; write it with clgan export")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; pip install -e '.[export]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        content = session.get_modelmeta().custom_metadata_map
        return OnnxModel(session, float(content["threshold"])), Card.from_text(content["card"])
    except Exception as error:  # onnxruntime has errors of its own
        raise ValueError(f"{path} is damaged or of another version ({first_line(error)}); export it again") from None
