"""Masks and true defects in colour over an image."""

import cv2
import numpy as np
from numpy.typing import NDArray

from clgan_lib.lab.svg import Drawing

COLOURS = {  # Okabe and Ito
    "true positive": (0, 158, 115),
    "false positive": (213, 94, 0),
    "false negative": (86, 180, 233),
}
_STRIPE = 12  # pixels from one stripe to the next; a third of it is bright


def compared(image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask against its truth, over the image in grey: the three kinds of `COLOURS`, true positives striped.

    The mask has a white edge, so that all can be told apart without their colours.
    """
    overlay = np.repeat(_grey(image)[..., None] // 2 + 60, 3, 2)
    for colour, pixels in zip(COLOURS.values(), (mask & truth, mask & ~truth, ~mask & truth), strict=True):
        overlay[pixels] = overlay[pixels] // 4 + np.asarray(colour, np.uint8) // 4 * 3  # the product stays visible
    rows, columns = np.indices(mask.shape)
    stripes = mask & truth & ((rows + columns) % _STRIPE < _STRIPE // 3)
    overlay[stripes] = overlay[stripes] // 2 + 127
    overlay[mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)] = 255
    return overlay


def outlined(image: NDArray[np.uint8], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with a line around the true defect, bright within dark, so that it shows on any product.

    The line lies outside the defect and hides none of it.
    """
    rings = [cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=n) > 0 for n in (2, 3)]
    overlay = image.copy()
    overlay[rings[1] & ~truth] = 0
    overlay[rings[0] & ~truth] = (240, 228, 66)
    return overlay


def discriminator_overlay(image: NDArray[np.uint8], logits: NDArray | None) -> NDArray[np.uint8]:
    """D's predictions over the image in grey: blue for real, orange for reconstructed, clear where D is undecided."""
    grey = np.repeat(_grey(image)[..., None], 3, 2)
    if logits is None:
        return grey
    certainty = np.tanh(logits / 2)  # 2 D - 1: from -1, reconstructed, to 1, real
    certainty = cv2.resize(certainty, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)[..., None]
    colour = np.where(certainty > 0, (0, 114, 178), (213, 94, 0))
    return (grey + 0.75 * np.abs(certainty) * (colour - grey.astype(np.float32))).clip(0, 255).astype(np.uint8)


def legend(board: Drawing, x: float, y: float) -> None:
    """The key to the colours of `compared`."""
    for name, colour in COLOURS.items():
        board.rect(x, y - 9, 10, 10, fill=f"rgb{colour}", radius=2)
        board.text(x + 14, y, name)
        x += 34 + 7 * len(name)
    board.text(x, y, "white edge: the prediction; stripes: where it is right")


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
