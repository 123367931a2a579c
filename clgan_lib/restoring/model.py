r"""CLGAN-R: CLGAN made to restore. Damaged good images go in, the good images themselves must come out.

The paper's objective has a hole: every term of eq. 6 leaves a generator alone that copies its input, and then it copies the
defect too. Here Real_A is a good image with a synthetic anomaly (`clgan_lib.restoring.anomaly_synthesis`) and Real_B the same
image without it, so that copying is what costs most:

$$ L_{total} = \lambda_{1} |w (G(A) - B)|_1 + \lambda_{s} (1 - SSIM) + \lambda_{g} (1 - GMS)
   + \lambda_x L_{PatchNCE}(G, H; G(A), B) + \lambda_{gan} L_{GAN}(G, D; A, B) $$

with w = 1 outside the damage and more inside. D and PatchNCE are the paper's, the keys are the whole image's features, and G
is a cheaper one (`clgan_lib.restoring.generator`). What GAN and PatchNCE add is measured in `notebooks/23_ablation.ipynb`.
The score compares image and reconstruction as G's own encoder sees them, in every pose that the product may take. No outside image and
no pretrained weight is used.

Training to restore made-up damage: Zavrtanik, Kristan, Skocaj, "DRAEM", ICCV 2021, and "RIAD", Pattern Recognition 112,
2021; comparing features of image and reconstruction: Shi, Yang, Qi, "Unsupervised anomaly segmentation via deep feature
reconstruction", Neurocomputing 424, 2021.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clgan_lib.augment import SYMMETRIES, jitter_brightness_contrast, poses, turn
from clgan_lib.clgan import CLGAN
from clgan_lib.data import to_float, to_uint8
from clgan_lib.losses import generator_loss
from clgan_lib.model import blur5, calibrated
from clgan_lib.networks import Norm
from clgan_lib.restoring.anomaly_synthesis import corrupt
from clgan_lib.restoring.generator import Restorer
from clgan_lib.restoring.validation_anomalies import synthetic_defects
from clgan_lib.similarity import feature_distance, gradient_similarity, ssim_map

Compare = Literal["color", "gradients", "features"]


class CLGANR(CLGAN):
    """The restoring variant; see the top of the file.

    Args:
        image_size: S, a multiple of 8, at least 32; 128 or more to find what is small.
        batch_size: B.
        width, blocks, norm: of G, see `clgan_lib.restoring.generator.Restorer`.
        restore: False feeds good images undamaged, as the paper does, with all else equal (for the ablation).
        lambda_1, lambda_s, lambda_g: weights of L1, structure and gradients.
        inside: how much more a damaged pixel weighs in L1.
        lambda_x: weight of PatchNCE; 0 spares its passes. What it adds is measured in notebook 23.
        lambda_gan: weight of L_GAN; 0 spares D and its passes.
        gan_from: share of the training after which G begins to listen to D; D learns all along.
        patches, temperature: of PatchNCE, see `CLGAN`.
        compare: what the score is made of, see `difference`.
        average_poses: redraw and score an image in each mirrored or quarter-turned pose that the product allows, and
            average: what is wrong in one pose only is G's mistake, not the product's.
        light: how far the light may vary in training, see `clgan_lib.augment.jitter_brightness_contrast`; Real_A and Real_B share it, so that
            another light is no damage. 0 leaves images as they were taken.
        learning_rate: AdamW's, constant for half of the training, then a cosine to 0; D's is a fifth of it.
        ema: decay of the moving averages of the weights, which reconstruct and score.

    Raises:
        ValueError: naming the argument that cannot be.
    """

    threshold: Tensor
    updates: Tensor
    symmetry: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int = 8,
        width: int = 24,
        blocks: int = 4,
        norm: Norm = "batch",
        restore: bool = True,
        lambda_1: float = 10.0,
        lambda_s: float = 1.0,
        lambda_g: float = 1.0,
        inside: float = 4.0,
        lambda_x: float = 0.1,
        lambda_gan: float = 0.0,
        gan_from: float = 0.5,
        patches: int = 128,
        temperature: float = 0.07,
        compare: Compare = "features",
        average_poses: bool = True,
        light: float = 0.05,
        learning_rate: float = 1e-3,
        ema: float = 0.998,
    ) -> None:
        if compare not in ("color", "gradients", "features"):
            raise ValueError(f"compare: {compare!r} is unknown; use 'color', 'gradients' or 'features'")
        if not (0 <= ema < 1 and 0 <= gan_from <= 1):
            raise ValueError(f"ema and gan_from: expected shares, ema below 1; got {ema} and {gan_from}")
        if not 0 <= light <= 0.5:
            raise ValueError(f"light: expected a share of the range, at most 0.5; got {light}")
        super().__init__(image_size=image_size, batch_size=batch_size, width=width, blocks=blocks, norm=norm, downs=3,
                         patches=patches, temperature=temperature, lambda_x=lambda_x, lambda_gan=lambda_gan,
                         learning_rate=learning_rate)  # fmt: skip
        self.restore, self.inside, self.gan_from, self.decay, self.compare = restore, inside, gan_from, ema, compare
        self.lambda_1, self.lambda_s, self.lambda_g = lambda_1, lambda_s, lambda_g
        self.average_poses, self.poses, self.light = average_poses, poses("none"), light
        self.average: Restorer = frozen_copy(self.generator)
        trained = [*self.generator.parameters(), *self.heads.parameters()]
        self.g_optimizer = torch.optim.AdamW(trained, lr=learning_rate, fused=True)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("symmetry", torch.tensor(SYMMETRIES.index("none")))
        self.add_comparator()

    def make_generator(self, width: int, blocks: int, norm: Norm, downs: int) -> Restorer:  # type: ignore[override]
        """G with three halvings and no skips."""
        return Restorer(width, blocks, norm=norm)

    def fit(self, images: Tensor, symmetry: str) -> None:
        """Remember the poses that the product allows."""
        self.symmetry.fill_(SYMMETRIES.index(symmetry))
        self._set_poses()

    def _set_poses(self) -> None:
        """`poses` from the buffer; a list, since an exported graph cannot depend on a tensor's value."""
        self.poses = poses(SYMMETRIES[int(self.symmetry)] if self.average_poses else "none", 90.0)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._set_poses()

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Networks whose weights are averaged: (average, trained)."""
        return [(self.average, self.generator)]

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """D's update where it has a weight, then G's and H's, on good images ``(B, 3, S, S)``."""
        self.train()
        self.set_learning_rate(progress)
        images = jitter_brightness_contrast(images, self.light) if self.light else images
        damaged, where = corrupt(images) if self.restore else (images, torch.zeros_like(images[:, :1]))
        redrawn, taps = self.generator.forward_with_taps(damaged.contiguous(memory_format=torch.channels_last))
        terms = self.update_discriminator(images, redrawn.detach()) if self.lambda_gan else {}
        terms |= self.update_restorer(images, redrawn, where, adversarial=progress >= self.gan_from)
        terms |= self.update_comparator(images, damaged, where, redrawn.detach(), [tap.detach() for tap in taps])
        self.updates += 1
        count = int(self.updates)
        for average, trained in self.averages():
            move_average(average, trained, min(self.decay, (1 + count) / (10 + count)))  # short at first
        return terms

    def add_comparator(self) -> None:
        """Nothing is learned to compare; see `clgan_lib.restoring.comparator`."""

    def update_comparator(
        self, images: Tensor, damaged: Tensor, where: Tensor, redrawn: Tensor, taps: list[Tensor]
    ) -> dict[str, Tensor]:
        """One step of the comparator, where there is one.

        Args:
            images, damaged, redrawn: Real_B, Real_A and G(Real_A), ``(B, 3, S, S)``.
            where: 1 where Real_A is damaged, ``(B, 1, S, S)``.
            taps: G_enc's features of Real_A, without their graph.
        """
        return {}

    def set_learning_rate(self, progress: float) -> None:
        """Constant for the first half of training, then a cosine to 0."""
        share = 0.5 * (1 + math.cos(math.pi * max(0.0, 2 * progress - 1)))
        for optimizer, rate in ((self.g_optimizer, self.learning_rate), (self.d_optimizer, self.learning_rate / 5)):
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def update_restorer(
        self, images: Tensor, redrawn: Tensor, where: Tensor, *, adversarial: bool
    ) -> dict[str, Tensor]:
        """One step of G and H.

        Args:
            images: Real_B, ``(B, 3, S, S)``.
            redrawn: G(Real_A) with its graph.
            where: 1 where Real_A is damaged, ``(B, 1, S, S)``.
            adversarial: whether L_GAN counts yet.
        """
        target, found = (images.float() + 1) / 2, (redrawn.float() + 1) / 2
        weight = (1 + self.inside * where).expand_as(found)
        terms = {
            "L_1": (weight * (found - target).abs()).sum() / weight.sum(),
            "L_SSIM": 1 - ssim_map(target, found).mean(),
            "L_gradient": 1 - torch.stack([m.mean() for m in gradient_similarity(target, found)]).mean(),
        }
        total = self.lambda_1 * terms["L_1"] + self.lambda_s * terms["L_SSIM"] + self.lambda_g * terms["L_gradient"]
        if self.lambda_x:
            with torch.no_grad():
                keys = self.generator.encode(images)
            terms["L_PatchNCE_X"] = self.contrast(redrawn, keys).mean()
            total = total + self.lambda_x * terms["L_PatchNCE_X"]
        if self.lambda_gan and adversarial:
            self.discriminator.requires_grad_(False)
            terms["L_GAN_G"] = generator_loss(self.discriminator(redrawn), gan=self.gan)
            total = total + self.lambda_gan * terms["L_GAN_G"]
        self.g_optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.g_optimizer.step()
        return {"L_total": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        self.eval()
        return sum_poses(self.average, self.poses, images) / len(self.poses)

    @torch.no_grad()
    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        """How image and reconstruction differ around each pixel, blurred; ``(B, S, S)``, >= 0."""
        self.eval()
        if reconstructions is None:
            reconstructions = self.reconstruct(images)
        scores = sum_poses(self.difference, self.poses, images, reconstructions) / len(self.poses)
        return blur5(scores[:, None])[:, 0].clamp_min(0)

    def difference(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """``(B, S, S)``, >= 0, by `compare`.

        ``"color"``: mean absolute difference; ``"gradients"``: 1 - gradient similarity over two scales; ``"features"``:
        1 - cosine of the features of G_enc at a half, a quarter and an eighth of the resolution, the mean of the three.
        """
        if self.compare == "color":
            return (images - reconstructions).abs().mean(1) / 2
        if self.compare == "gradients":
            maps = [1 - m for m in gradient_similarity((images + 1) / 2, (reconstructions + 1) / 2, scales=2)]
        else:
            pairs = zip(self.average.encode(images)[1:], self.average.encode(reconstructions)[1:], strict=True)
            maps = [feature_distance(a, b) for a, b in pairs]
        same = [F.interpolate(m, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0] for m in maps]
        return torch.stack(same).mean(0)

    def calibrate(self, images: Tensor) -> None:
        """Choose the native threshold on held-out good images: half way, in log, between two that each miss by one side.

        The higher one finds other synthetic anomalies in them best (`clgan_lib.restoring.validation_anomalies`): the family that
        G was trained on would flatter). Probes are stronger than many a defect, so it passes over what is faint. Above the lower
        one lie 1 % of their pixels, so it marks something on every product.
        """

        def score(pictures: np.ndarray) -> np.ndarray:
            """``(H, S, S, 3)`` uint8 to maps ``(H, S, S)``."""
            batches = torch.from_numpy(pictures).permute(0, 3, 1, 2).split(8)
            return torch.cat([self.anomaly_map(to_float(b).to(self.device)).cpu() for b in batches]).numpy()

        good = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
        painted, passed = synthetic_defects(good, score, repeats=4), float(np.quantile(score(good), 0.99))
        self.threshold.fill_(math.sqrt(painted * passed))

    def detect_native(self, images: Tensor) -> Tensor:
        """What scores above the threshold that `calibrate` chose; bool ``(B, S, S)``."""
        return self.anomaly_map(images) > self.map_threshold()

    def map_threshold(self) -> float:
        """What `calibrate` chose."""
        return float(calibrated(self.threshold))

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore the optimisers' moments; D has none where it has no weight."""
        super().load_training_state({**state, "D": state.get("D", {})})


def sum_poses(function: Callable[..., Tensor], allowed: list[tuple[float, bool]], *images: Tensor) -> Tensor:
    """The sum of what a function of images answers in each pose, turned back; quarter turns and mirrors only."""
    total: Any = 0
    for angle, mirrored in allowed:
        answer = turn(function(*(turn(image, angle, mirrored) for image in images)), -angle, False)
        total = total + turn(answer, 0, mirrored)
    return total


def frozen_copy(network: Any) -> Any:
    """A copy that is never trained, to hold an average."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def move_average(average: nn.Module, trained: nn.Module, decay: float) -> None:
    """Move averaged weights towards the trained ones, batch norm's statistics too."""
    kept, new = ([*network.parameters(), *network.buffers()] for network in (average, trained))
    floats = [(a, b) for a, b in zip(kept, new, strict=True) if a.is_floating_point()]  # others count batches
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
