"""From a name and a seed to a photograph: which product, which defect, which random streams."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from clgan_lib.synthetic import defects_objects, defects_textures, objects, textures
from clgan_lib.synthetic.canvas import Canvas
from clgan_lib.synthetic.scene import Defect, Scene

_PRODUCTS: dict[str, tuple[Callable[[Canvas, Generator], Scene], dict[str, Defect]]] = {
    "bottle": (objects.bottle, defects_objects.BOTTLE),
    "carpet": (textures.carpet, defects_textures.CARPET),
    "grid": (textures.grid, defects_textures.GRID),
    "hazelnut": (objects.hazelnut, defects_objects.HAZELNUT),
    "leather": (textures.leather, defects_textures.LEATHER),
    "metal_nut": (objects.metal_nut, defects_objects.METAL_NUT),
    "tile": (textures.tile, defects_textures.TILE),
    "wood": (textures.wood, defects_textures.WOOD),
}
CATEGORIES: tuple[str, ...] = tuple(_PRODUCTS)
DEFECTS: dict[str, tuple[str, ...]] = {name: tuple(defects) for name, (_, defects) in _PRODUCTS.items()}
_SMALLEST = 32  # pixels; below, a crack or a hair is nowhere more than a trace


def check(category: str, image_size: int) -> None:
    """Refuse a category that is not embedded, and a size at which defects vanish."""
    if category not in _PRODUCTS:
        raise ValueError(f"category {category!r} is not embedded: choose from {', '.join(CATEGORIES)}")
    if image_size < _SMALLEST:
        raise ValueError(f"image_size: expected at least {_SMALLEST} pixels, got {image_size}")


def draw(
    category: str, defect: str = "good", *, image_size: int = 256, seed: int | Sequence[int] = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one product, good or with a defect.

    The product depends on ``category`` and ``seed`` alone, so ``draw(c, "good", seed=s)`` is the very scene that
    ``draw(c, d, seed=s)`` damages: outside the mask the two are equal. ``image_size`` changes the sharpness, not the
    scene.

    Args:
        category: one of ``CATEGORIES``.
        defect: ``"good"`` or one of ``DEFECTS[category]``.
        image_size: side in pixels, at least 32.
        seed: a non-negative number, or several.

    Returns:
        The image, ``(S, S, 3)`` uint8 RGB, and its mask, ``(S, S)`` bool.

    Raises:
        ValueError: if the category, the defect or the size is not to be had.
    """
    check(category, image_size)
    product, defects = _PRODUCTS[category]
    if defect != "good" and defect not in defects:
        raise ValueError(f"defect {defect!r} of {category} is not embedded: choose from good, {', '.join(defects)}")
    entropy = [seed] if isinstance(seed, int | np.integer) else list(seed)
    scene = product(Canvas(image_size), np.random.default_rng([*entropy, zlib.crc32(category.encode())]))
    loose = 0
    if defect != "good":
        rng = np.random.default_rng([*entropy, zlib.crc32(f"{category}/{defect}".encode())])
        loose = int(rng.integers(0, 4))
        defects[defect](scene, rng)
    return scene.render(loose)
