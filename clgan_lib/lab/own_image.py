"""An image of the reader's own under a trained model: what it reconstructs, and what each detector marks."""

import html
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets as ipw
import numpy as np
import torch
from numpy.typing import NDArray

from clgan_lib.data import read_image, resize
from clgan_lib.lab.controls import LiveDrawing
from clgan_lib.lab.overlays import outlined
from clgan_lib.lab.svg import ORANGE, Drawing
from clgan_lib.model import ReconstructionModel
from clgan_lib.runs.evaluation import SIZE, predict
from clgan_lib.runs.execution import load_model
from clgan_lib.runs.record import Record, read_record

_UNLIKE = 0.2  # share of an image above the calibrated threshold from which it is hardly the product that was learnt


def draw_inspected(model: ReconstructionModel, record: Record, image: NDArray[np.uint8]) -> Drawing:
    """One image without a truth: reconstruction, anomaly map, and the mask of each detector.

    Args:
        model: trained.
        record: of its run.
        image: uint8 ``(256, 256, 3)``.
    """
    config, threshold = record.run_config(), record.thresholds.calibrated or 0.0
    predicted = predict(model, torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    masks, scores = predicted.masks(threshold, config.k), predicted.scores[0]
    tiles = [
        (predicted.images[0], "I", f"at {model.image_size} × {model.image_size} pixels"),
        (predicted.reconstructions[0], "Ir", "the reconstruction"),
        (scores / max(float(scores.max()), 3 * threshold), "anomaly map", f"threshold {threshold:.3f}"),
        *(
            (outlined(image, mask[0]), name.replace("_", " "), f"outlined: {100 * mask.mean():.1f} %")
            for name, mask in masks.items()
        ),
    ]
    board = Drawing(950, 252, f"A model of {config.category} on an image of your own")
    for number, (pixels, title, note) in enumerate(tiles):
        board.image(10 + 157 * number, 44, 146, pixels, title, note)
    board.text(10, 214, f"The model has learnt what a good {config.category} looks like, and no other product.")
    if masks["calibrated"].mean() > _UNLIKE:
        share = f"{100 * masks['calibrated'].mean():.0f} % lie above the calibrated threshold"
        board.text(10, 236, f"{share}: this is hardly a {config.category}.", weight=600, fill=ORANGE, name="unlike")
    return board


class OwnImage(LiveDrawing):
    """Takes an uploaded image and shows it with `draw_inspected`.

    Args:
        folder: of a finished run with its weights.
        image: shown first, uint8 ``(256, 256, 3)``.
    """

    def __init__(self, folder: str | Path, image: NDArray[np.uint8]) -> None:
        super().__init__()
        self.model, self.record, self.image = load_model(folder), read_record(folder), image
        self.upload = ipw.FileUpload(accept="image/*", description="your image", layout=ipw.Layout(width="160px"))
        self.upload.observe(lambda change: self.run(self._read), names="value")
        self.begin([ipw.HBox([self.upload])])

    def draw(self) -> Drawing:
        """The last image that could be read."""
        return draw_inspected(self.model, self.record, self.image)

    def _read(self) -> None:
        """Take the file that was chosen; one that is no image is named, and the last picture stays."""
        for file in self.upload.value:
            with TemporaryDirectory() as folder:
                path = Path(folder, Path(file["name"]).name)
                path.write_bytes(file["content"])
                try:
                    self.image = resize(read_image(path), SIZE)
                except ValueError as error:
                    words = str(error).replace(f"{folder}/", "").replace("replace or remove it", "choose another")
                    self.message.value = f"<b class='clgan-note'>{html.escape(words)}</b>"
