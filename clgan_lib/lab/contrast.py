"""PatchNCE to look at: one query patch, its positive and negatives on the image, and the softmax over them.

The features here are the patches' own pixels, so that everything can be checked by eye; the paper's are an encoder's.
"""

from collections.abc import Mapping
from typing import NamedTuple

import ipywidgets as ipw
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.lab.controls import LiveDrawing, slider
from clgan_lib.lab.svg import BLUE, GREEN, ORANGE, SOFT, Axes, Drawing

SIDE, OUTPUT, INPUT, MATRIX = 224, 10, 250, 490  # the three squares of `draw_contrast`: their width and left edges
GRID = 8  # patches along each side in the explorer
BARS = 136  # width of its longest bar


class Contrast(NamedTuple):
    """The terms of eq. 2, see `contrast`."""

    similarity: Tensor
    weights: Tensor
    losses: Tensor


def contrast(query: Tensor, key: Tensor, temperature: float = 0.07) -> Contrast:
    r"""The terms of eq. 2, for S queries and S keys.

    Args:
        query, key: ``(S, K)``, unit length along K; row s of `key` is the positive of row s of `query`.
        temperature: $\tau$ > 0.

    Returns:
        `similarity` $v_q \cdot v$ of each query (row) with each key (column), ``(S, S)``; `weights`, the softmax of each
        row of ``similarity / temperature``; `losses`, eq. 2 of each query, whose mean is `losses.patch_nce_loss`.
    """
    similarity = query @ key.T
    logarithms = F.log_softmax(similarity / temperature, dim=1)
    return Contrast(similarity, logarithms.exp(), -logarithms.diagonal())


def pixel_features(image: NDArray, grid: int = 8, reference: NDArray | None = None) -> Tensor:
    """The pixels of each of grid x grid patches as a vector of unit length.

    Args:
        image: uint8 ``(H, W, 3)``; H and W multiples of `grid`.
        grid: patches along each side.
        reference: the image whose mean colour is subtracted first, so that similarity is more than brightness; the image
            itself by default. Queries and keys need the same one.

    Returns:
        ``(grid * grid, K)``, row by row.

    Raises:
        ValueError: if the image can't be cut into that many patches.
    """
    if image.ndim != 3 or image.shape[0] % grid or image.shape[1] % grid:
        raise ValueError(f"image: expected (H, W, 3), H and W multiples of grid = {grid}, got {image.shape}")
    mean = torch.as_tensor(image if reference is None else reference, dtype=torch.float32).mean((0, 1))
    centred = (torch.as_tensor(image, dtype=torch.float32) - mean).permute(2, 0, 1)
    size = (image.shape[0] // grid, image.shape[1] // grid)
    patches = F.unfold(centred[None], size, stride=size)[0].T  # (grid * grid, 3 * size)
    return F.normalize(patches, dim=1, eps=1e-7)


def draw_contrast(
    image: NDArray, output: NDArray, patch: int, temperature: float = 0.07, grid: int = 8, other: int | None = None
) -> Drawing:
    r"""One query of eq. 2: its place, its positive and negatives, and its loss.

    Args:
        image: the input x, uint8 ``(S, S, 3)``: positive and negatives come from here.
        output: G(x), of the same shape: the query comes from here.
        patch: which query, counted row by row.
        temperature: $\tau$.
        grid: patches along each side.
        other: a key to compare with the query, counted likewise.

    Raises:
        ValueError: if there is no such patch, or from `pixel_features`.
    """
    for name, number in {"patch": patch, "other": other or 0}.items():
        if not 0 <= number < grid * grid:
            raise ValueError(f"{name}: expected 0 to {grid * grid - 1}, got {number}")
    parts = contrast(pixel_features(output, grid, image), pixel_features(image, grid), temperature)
    weights, top, cell = parts.weights[patch], 40, SIDE / grid
    board = Drawing(950, 332, f"PatchNCE of patch {patch}: query, keys, similarities and softmax")
    board.image(OUTPUT, top, SIDE, output, "Output: the query", f"patch {patch}, in blue")
    _box(board, OUTPUT, top, cell, divmod(patch, grid), BLUE, 1.0)
    board.image(INPUT, top, SIDE, image, "Input: the keys", "green the positive, orange negatives")
    for key, weight in enumerate(weights.tolist()):
        if key != patch and weight > 0.003:
            _box(board, INPUT, top, cell, divmod(key, grid), ORANGE, min(1.0, 0.25 + weight))
    _box(board, INPUT, top, cell, divmod(patch, grid), GREEN, 1.0)
    note = "rows: queries, columns: keys"
    board.image(MATRIX, top, SIDE, _diverging(parts.similarity.numpy()), "Similarity: orange 1, blue −1", note)
    board.rect(MATRIX - 1, top + patch * cell / grid - 1.5, SIDE + 2, cell / grid + 3, stroke="#000000", line=1.2)
    _bars(board, weights, patch)
    loss = f"Loss of this query: −log {weights[patch]:.3f} = {parts.losses[patch]:.3f}"
    board.text(10, 294, loss, weight=600, name="loss")
    mean = f"Mean over all {grid * grid} queries, eq. 3: {parts.losses.mean():.3f}"
    board.text(330, 294, f"{mean}; log {grid * grid} = {np.log(grid * grid):.3f} would be guessing.")
    if other is not None:
        left, upper = INPUT + other % grid * cell, top + other // grid * cell
        board.rect(left + 2, upper + 2, cell - 4, cell - 4, stroke="#000000", line=2, dash="3 2")
        board.rect(MATRIX + other * cell / grid - 2, top + patch * cell / grid - 2, 7, 7, stroke="#000000", line=2)
        role, similarity = "its positive" if other == patch else "a negative", parts.similarity[patch, other]
        pair = f"Query {patch} with key {other}, {role} (dashed): similarity {similarity:.3f}"
        board.text(10, 316, f"{pair}, softmax weight {weights[other]:.3f}.", name="pair")
    return board


def _box(board: Drawing, x: float, y: float, side: float, place: tuple[int, int], colour: str, strength: float) -> None:
    left, top = x + place[1] * side, y + place[0] * side
    board.rect(left, top, side, side, fill=colour, opacity=0.35 * strength)
    board.rect(left, top, side, side, stroke=colour, line=1 + 1.5 * strength, opacity=strength)


def _diverging(values: NDArray) -> NDArray[np.uint8]:
    """-1 to 1 as blue, white, orange."""
    ends = np.where(values[..., None] > 0, (213, 94, 0), (0, 114, 178))
    return (255 - np.abs(values)[..., None] * (255 - ends)).clip(0, 255).astype(np.uint8)


def _bars(board: Drawing, weights: Tensor, patch: int) -> None:
    """The softmax of one query: its positive and its heaviest negatives."""
    order = [patch, *(i for i in weights.argsort(descending=True).tolist() if i != patch)][:9]
    axes = Axes(board, (768, 40, BARS, SIDE), (0, 1), (0, len(order)))
    axes.frame("Softmax of its row", {0: "0", 0.5: "0.5", 1: "1"}, {}, "positive, heaviest negatives")
    for line, key in enumerate(order):
        left, top = axes.at(0, len(order) - line - 0.15)
        board.rect(left, top, BARS * float(weights[key]), 17, fill=GREEN if key == patch else ORANGE)
        board.text(left - 4, top + 13, str(key), anchor="end", fill=SOFT)
        board.text(left + BARS * float(weights[key]) + 4, top + 13, f"{weights[key]:.2f}", fill=SOFT)


class PatchExplorer(LiveDrawing):
    """`draw_contrast` with sliders for query patch and temperature.

    A click on the output chooses the query, one on the input a key to compare it with, one on the matrix both.

    Args:
        image: the input, uint8 ``(S, S, 3)``.
        outputs: possible outputs of a generator by name, uint8, of the same shape.
        patch: the first query.
    """

    def __init__(self, image: NDArray, outputs: Mapping[str, NDArray], patch: int) -> None:
        super().__init__()
        self.image, self.outputs, self.other = image, dict(outputs), patch
        self.patch = slider(ipw.IntSlider, patch, 0, GRID * GRID - 1, 1, "query patch", label=90)
        self.temperature = slider(ipw.FloatLogSlider, 0.07, -2, 0.5, 0.02, "temperature", label=90)
        self.output = ipw.ToggleButtons(options=list(self.outputs), style={"button_width": "auto"})
        controls = [self.patch, self.temperature, self.output]
        self.begin([ipw.HBox(controls, layout=ipw.Layout(flex_flow="row wrap"))], controls)

    def draw(self) -> Drawing:
        """Similarities of the chosen patch of the chosen output; the three squares can be clicked."""
        output = self.outputs[self.output.value]
        board = draw_contrast(self.image, output, self.patch.value, self.temperature.value, GRID, self.other)
        for name, left in {"output": OUTPUT, "input": INPUT, "matrix": MATRIX}.items():
            board.clickable(left, 40, SIDE, GRID**2 if name == "matrix" else GRID, name)
        return board

    def picked(self, name: str, row: int, column: int) -> None:
        """Take a query from the output, a key from the input, or both from the matrix."""
        if name == "matrix":
            self.patch.value, self.other = row, column
        elif name == "input":
            self.other = row * GRID + column
        else:
            self.patch.value = self.other = row * GRID + column
