"""A product on the table: its colours before lighting and sensor noise, and what a defect has changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from clgan_lib.synthetic.canvas import Array, Canvas, Colour, grey, tinted

VISIBLE = 0.04  # a change of less than this share of a pixel is undone, so that the mask is exact


@dataclass
class Scene:
    """One drawing in progress; its image is ``(S, S, 3)`` RGB in [0, 255], before light and sensor noise."""

    canvas: Canvas
    image: Array
    lighting: Array  # (S, S, 3), a factor
    noise: Array  # (S, S), grey levels
    body: Array | None = None  # (S, S) coverage of the product, where it does not fill the image
    centre: tuple[float, float] = (128.0, 128.0)
    angle: float = 0.0
    face: tuple[float, float] | None = None  # distances from the centre between which an object has a surface
    ground: Array | None = None  # what lies under a product that has gaps
    change: Array = field(init=False)  # (S, S) in [0, 1], how much of each pixel a defect has replaced
    good: Array = field(init=False)

    def __post_init__(self) -> None:
        self.good = self.image
        self.image = self.image.copy()
        self.change = np.zeros(self.noise.shape, np.float32)

    def on_product(self, cover: Array) -> Array:
        """A coverage cut to the product; all of it where the product fills the image."""
        return cover if self.body is None else cover * self.body

    def overlay(self, colour: Colour, alpha: Array) -> None:
        """Lay a colour over the image, ``alpha`` (S, S) in [0, 1] thick, and count it as changed."""
        thick = grey(alpha)
        layer = colour * thick if isinstance(colour, np.ndarray) else tinted(alpha, colour)
        self.image = self.image * (1 - thick) + layer
        np.maximum(self.change, alpha, out=self.change)

    def stain(self, factor: Sequence[float], alpha: Array) -> None:
        """Multiply the image by three factors where ``alpha`` says, as a liquid or ink does."""
        self.image *= 1 + tinted(alpha, [c - 1 for c in factor])
        np.maximum(self.change, alpha, out=self.change)

    def shade(self, level: Array, alpha: Array) -> None:
        """Add grey levels (S, S) where ``alpha`` says: a highlight or a shadow."""
        self.image += grey(level * alpha)
        np.maximum(self.change, alpha, out=self.change)

    def render(self, loose: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The finished photograph and the mask of what was changed.

        Args:
            loose: how many units (pixels at 256; rounded down at other sizes) the mask reaches beyond the change, as an
                outline drawn by a person does.

        Returns:
            RGB ``(S, S, 3)`` and a mask ``(S, S)``, which is empty for a good scene.
        """
        changed = self.change > VISIBLE
        image = np.where(changed[..., None], self.image, self.good) if changed.any() else self.good
        image = image * self.lighting + grey(self.noise + np.float32(0.5))  # + 0.5: the cast below rounds down
        reach = int(loose * self.canvas.scale)
        mask = changed
        if reach and changed.any():
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
            mask = cv2.dilate(changed.astype(np.uint8), kernel).astype(bool)
        return np.clip(image, 0, 255).astype(np.uint8), mask


Defect = Callable[[Scene, Generator], None]  # damages a scene in place


def lighting(canvas: Canvas, rng: Generator, *, gain: float = 0.1, slope: float = 0.06, tint: float = 0.008) -> Array:
    """Random lighting, a factor ``(S, S, 3)``.

    `gain`: brightness varies by up to this share; `slope`: by up to this share from the middle to a side; `tint`: standard
    deviation of each channel's own factor.
    """
    angle, steep = rng.uniform(0, 2 * np.pi), rng.uniform(0, slope)
    across = np.float32(np.cos(angle) * steep / 128) * (canvas.x - 128)
    down = np.float32(np.sin(angle) * steep / 128) * (canvas.y - 128)
    channels = (1 + rng.uniform(-gain, gain)) * (1 + rng.normal(0, tint, 3))
    return tinted(1 + across + down, channels.tolist())


def sensor_noise(canvas: Canvas, rng: Generator, sigma: float = 1.2) -> Array:
    """Camera noise in grey levels, ``(S, S)``; finer than a pixel it averages out, as when a photograph is reduced."""
    return canvas.noise(rng, 256) * np.float32(sigma)
