r"""CLGAN-R and CLGAN-RC: good images with synthetic anomalies go in, the good images must come out.

Every term of the paper's eq. 6 leaves a generator alone that copies its input, and such a generator copies defects too.
Here Real_A is a good image with synthetic anomalies (`anomaly_synthesis`) and Real_B the same image without them:

$$ L_{total} = \lambda_{1} |w (G(A) - B)|_1 + \lambda_{s} (1 - SSIM) + \lambda_{g} (1 - GMS)
   + \lambda_x L_{PatchNCE}(G, H; G(A), B) + \lambda_{gan} L_{GAN}(G, D; A, B) $$

with w = 1 outside the anomalies and more inside. G is a cheaper one than the paper's (`generator`). D and H are
the paper's, and built only where their weight is not 0; `notebooks/23_ablation.ipynb` measures what they add. The anomaly
map compares image and reconstruction (`comparator`). Reconstruction and map are averaged over the symmetry of the product
(test-time augmentation). No other images and no pretrained weights are used.

Training to remove synthetic anomalies: Zavrtanik, Kristan, Skocaj, "DRAEM", ICCV 2021, and "RIAD", Pattern Recognition 112,
2021; comparing features of image and reconstruction: Shi, Yang, Qi, "Unsupervised anomaly segmentation via deep feature
reconstruction", Neurocomputing 424, 2021.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from clgan_lib.augment import (
    SYMMETRIES,
    jitter_brightness_contrast,
    match_brightness,
    mean_over_augmentations,
    poses,
    with_gain,
)
from clgan_lib.calibration import quantile
from clgan_lib.data import to_float, to_uint8
from clgan_lib.layers import Norm
from clgan_lib.losses import adversarial_loss, generator_loss, patch_nce_over_taps
from clgan_lib.model import AdamW, ReconstructionModel, adam, blur5, calibrated
from clgan_lib.networks import PatchDiscriminator, ProjectionHead
from clgan_lib.restoring.anomaly_synthesis import corrupt
from clgan_lib.restoring.comparator import Comparator, Compare, differences, fixed_difference, visible_anomaly
from clgan_lib.restoring.generator import Restorer, reconstruction_losses
from clgan_lib.restoring.validation_anomalies import synthetic_anomaly_threshold

TRAINING_ONLY = ("discriminator", "heads")  # networks that a weights file may hold and inference does not need


class RestoringModel(ReconstructionModel):
    """CLGAN-R; see the top of the file.

    Args:
        image_size, batch_size: S, a multiple of 8, at least 32, better 128 or more; B.
        width, blocks, norm: of G, see `Restorer`.
        restore: False shows G good images without synthetic anomalies, as the paper does, all else equal (for the ablation).
        lambda_1, lambda_s, lambda_g: weights of L1, structure and gradients.
        inside: how much more an anomalous pixel weighs in L1.
        lambda_x, lambda_gan: weights of PatchNCE and L_GAN; with 0 no H or no D is built.
        gan_from: share of the training after which L_GAN counts for G; D learns from the start.
        patches, temperature: of PatchNCE, see `clgan_lib.clgan.CLGAN`.
        compare: what the anomaly map compares, see `fixed_difference`.
        context: whether the comparator of clgan_rc sees the features of the image beside the differences.
        average_poses: test-time augmentation by the mirror images and quarter turns that the product's symmetry allows.
        light: strength of the brightness and contrast jitter in training (`jitter_brightness_contrast`), the same for
            Real_A and Real_B, so that a lighting change is no anomaly; 0 for none.
        match_light: bring every image to the mean brightness of the training images, in training and in use
            (`match_brightness`), so that more or less light is no anomaly; reconstructions get the light of their image.
        learning_rate: AdamW's, constant for half of the training, then a cosine to 0; a fifth of it for D's Adam.
        ema: decay of the moving averages of the weights, which are used for inference.

    Raises:
        ValueError: naming the argument that cannot be.
    """

    has_comparator = False
    threshold: Tensor
    updates: Tensor
    brightness: Tensor
    symmetry: Tensor

    def __init__(
        self, *, image_size: int, batch_size: int = 8, width: int = 24, blocks: int = 4, norm: Norm = "batch",
        restore: bool = True, lambda_1: float = 10.0, lambda_s: float = 1.0, lambda_g: float = 1.0, inside: float = 4.0,
        lambda_x: float = 0.1, lambda_gan: float = 0.0, gan_from: float = 0.5, patches: int = 128,
        temperature: float = 0.07, compare: Compare = "features", context: bool = False, average_poses: bool = True,
        light: float = 0.05, match_light: bool = False, learning_rate: float = 1e-3, ema: float = 0.998,
    ) -> None:  # fmt: skip
        super().__init__(image_size=image_size, batch_size=batch_size)
        self.restore, self.light, self.match_light, self.inside = restore, light, match_light, inside
        self.lambda_1, self.lambda_s, self.lambda_g, self.lambda_x = lambda_1, lambda_s, lambda_g, lambda_x
        self.lambda_gan, self.gan_from, self.patches, self.temperature = lambda_gan, gan_from, patches, temperature
        self.compare, self.context, self.average_poses = compare, context, average_poses
        self.ema = ema
        self._check()
        self._build_networks(width, blocks, norm)
        self.optimizers = self._make_optimizers(learning_rate)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("brightness", torch.tensor(0.0))  # 0 where the light is left as it is
        self.register_buffer("symmetry", torch.tensor(SYMMETRIES.index("none")))
        self._set_augmentations()

    def _check(self) -> None:
        if self.image_size < 32 or self.image_size % 8:
            raise ValueError(f"image_size: CLGAN-R needs a multiple of 8, at least 32, got {self.image_size}")
        if self.compare not in get_args(Compare):
            raise ValueError(f"compare: {self.compare!r} is unknown; use one of {', '.join(get_args(Compare))}")
        if self.has_comparator and self.compare != "features":
            raise ValueError("compare: clgan_rc compares by its comparator; leave the option out, or use clgan_r")
        if not (0 <= self.ema < 1 and 0 <= self.gan_from <= 1):
            raise ValueError(f"ema and gan_from: expected shares, ema below 1; got {self.ema} and {self.gan_from}")
        if self.context and not self.has_comparator:
            raise ValueError("context: only clgan_rc has a comparator; leave the option out, or use clgan_rc")
        if not 0 <= self.light <= 0.5:
            raise ValueError(f"light: expected a share of the range, at most 0.5; got {self.light}")

    def _build_networks(self, width: int, blocks: int, norm: Norm) -> None:
        """G and its average; D, H and the comparator where they are used, else None."""
        self.generator = Restorer(width, blocks, norm=norm)
        channels = self.generator.channels
        self.discriminator = PatchDiscriminator(width) if self.lambda_gan else None
        self.heads = nn.ModuleList(map(ProjectionHead, channels)) if self.lambda_x else None
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        seen = channels * 2 if self.context else channels
        self.comparator = Comparator(seen) if self.has_comparator else None
        self.comparator_average = copy.deepcopy(self.comparator).requires_grad_(False) if self.comparator else None

    def _make_optimizers(self, learning_rate: float) -> dict[str, torch.optim.Optimizer]:
        """One for G and H, one for D, one for the comparator: G learns from the losses of the first alone."""
        trained = [*self.generator.parameters(), *(self.heads.parameters() if self.heads else ())]
        made: dict[str, torch.optim.Optimizer] = {"G": AdamW(trained, lr=learning_rate, fused=True)}
        if self.discriminator is not None:
            made["D"] = adam(self.discriminator.parameters(), learning_rate / 5)
        if self.comparator is not None:
            made["C"] = AdamW(self.comparator.parameters(), lr=learning_rate, fused=True)
        return made

    def fit(self, images: Tensor, symmetry: str) -> None:
        """Remember the symmetry of the product, and the light of its images."""
        if self.match_light and len(images):
            self.brightness.fill_(float(torch.stack([image.float().mean() for image in images]).mean()) / 255)
        self.symmetry.fill_(SYMMETRIES.index(symmetry))
        self._set_augmentations()

    def _set_augmentations(self) -> None:
        """Test-time augmentations from the buffer; a list, since an exported graph cannot depend on a tensor's value."""
        self.augmentations = poses(SYMMETRIES[int(self.symmetry)] if self.average_poses else "none", 90.0)

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """D's update, then G's and H's, then the comparator's, on good images ``(B, 3, S, S)``."""
        self.train()
        self.scale_learning_rates(constant_then_cosine(progress))
        images = match_brightness(images, self.brightness)[0]
        images = jitter_brightness_contrast(images, self.light) if self.light else images
        corrupted, anomaly = corrupt(images) if self.restore else (images, torch.zeros_like(images[:, :1]))
        output, taps = self.generator.forward_with_taps(corrupted.contiguous(memory_format=torch.channels_last))
        fixed = output.detach()
        terms: dict[str, Tensor] = {}
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            fake = adversarial_loss(self.discriminator(fixed), False)
            real = adversarial_loss(self.discriminator(images), True)
            self.minimise((real + fake) / 2, "D")
            terms |= {"L_D_real": real.detach(), "L_D_fake": fake.detach()}
        terms |= self._update_generator(images, output, anomaly, adversarial=progress >= self.gan_from)
        if self.comparator is not None:
            with torch.no_grad():
                inputs = differences(corrupted, fixed, taps, self.generator.encode(fixed), context=self.context)
            loss = self.comparator.loss(inputs, visible_anomaly(images, corrupted, anomaly))
            self.minimise(loss, "C")
            terms["L_compare"] = loss.detach()
        self.updates += 1
        count = int(self.updates)
        decay = min(self.ema, (1 + count) / (10 + count))  # a short memory at first
        move_average(self.average, self.generator, decay)
        if self.comparator is not None and self.comparator_average is not None:
            move_average(self.comparator_average, self.comparator, decay)
        return terms

    def _update_generator(
        self, images: Tensor, output: Tensor, anomaly: Tensor, *, adversarial: bool
    ) -> dict[str, Tensor]:
        """One step of G and H on the loss at the top of the file; `output` is G(Real_A) with its graph."""
        terms = reconstruction_losses(images, output, anomaly, self.inside)
        total = self.lambda_1 * terms["L_1"] + self.lambda_s * terms["L_SSIM"] + self.lambda_g * terms["L_gradient"]
        if self.heads is not None:
            with torch.no_grad():
                keys = self.generator.encode(images)
            queries = self.generator.encode(output)
            terms["L_PatchNCE_X"] = patch_nce_over_taps(
                self.heads, queries, keys, patches=self.patches, temperature=self.temperature
            ).mean()
            total = total + self.lambda_x * terms["L_PatchNCE_X"]
        if self.discriminator is not None and adversarial:
            self.discriminator.requires_grad_(False)  # its gradients would be computed and thrown away
            terms["L_GAN_G"] = generator_loss(self.discriminator(output))
            total = total + self.lambda_gan * terms["L_GAN_G"]
        self.minimise(total, "G")
        return {"L_total": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        self.eval()
        matched, factors = match_brightness(images, self.brightness)
        return with_gain(mean_over_augmentations(self.average, self.augmentations, matched), 1 / factors)

    @torch.no_grad()
    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        """How image and reconstruction differ around each pixel, blurred; ``(B, S, S)``, >= 0.

        With a comparator, -log of the probability that a pixel is normal: no upper bound keeps a threshold from being
        extrapolated from the largest scores of good images.
        """
        self.eval()
        if reconstructions is None:
            reconstructions = self.reconstruct(images)
        images, factors = match_brightness(images, self.brightness)
        reconstructions = with_gain(reconstructions, factors)
        scores = mean_over_augmentations(self._difference, self.augmentations, images, reconstructions)
        scores = blur5(scores[:, None])[:, 0].clamp_min(0)
        return -torch.log1p(-scores.clamp_max(1 - 1e-6)) if self.has_comparator else scores

    def _difference(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """By the comparator, or else by `compare`; ``(B, S, S)``, >= 0."""
        if self.comparator_average is None:
            return fixed_difference(self.compare, images, reconstructions, self.average.encode)
        taps, others = self.average.encode(images), self.average.encode(reconstructions)
        inputs = differences(images, reconstructions, taps, others, context=self.context)
        return self.comparator_average.probability(inputs)

    def calibrate(self, images: Tensor) -> None:
        """Choose the native threshold on held-out good images: the geometric mean of two that err on opposite sides.

        The first finds other synthetic anomalies best (`clgan_lib.restoring.validation_anomalies`): those of training would
        flatter G. They are stronger than many a defect, so it misses weak ones. The second is the 99 % quantile of good
        pixels, so it marks something on nearly every product.
        """

        def score(batch: np.ndarray) -> np.ndarray:
            """Anomaly maps ``(H, S, S)`` of uint8 images ``(H, S, S, 3)``."""
            parts = torch.from_numpy(batch).permute(0, 3, 1, 2).split(8)
            return torch.cat([self.anomaly_map(to_float(part).to(self.device)).cpu() for part in parts]).numpy()

        good = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
        highest, lowest = synthetic_anomaly_threshold(good, score, repeats=4), quantile(score(good), 0.99)
        self.threshold.fill_(math.sqrt(highest * lowest))

    def detect_native(self, images: Tensor) -> Tensor:
        """What scores above the threshold that `calibrate` chose; bool ``(B, S, S)``."""
        return self.anomaly_map(images) > self.map_threshold()

    def map_threshold(self) -> float:
        """The threshold that `calibrate` chose."""
        return float(calibrated(self.threshold))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As `nn.Module`'s, for files of earlier versions: some hold D and H that this model has not, or no `brightness`."""
        unused = tuple(f"{name}." for name in TRAINING_ONLY if getattr(self, name) is None)
        used = {key: value for key, value in state_dict.items() if not key.startswith(unused)}
        loaded = super().load_state_dict({"brightness": torch.tensor(0.0), **used}, strict, assign)
        self._set_augmentations()
        return loaded


class RestoringModelWithComparator(RestoringModel):
    """CLGAN-RC: CLGAN-R whose anomaly map is a comparator's; the same arguments, `compare` aside."""

    has_comparator = True


def constant_then_cosine(progress: float) -> float:
    """The share of a learning rate at `progress` in [0, 1]: 1 for half of the training, then a cosine to 0."""
    return 0.5 * (1 + math.cos(math.pi * max(0.0, 2 * progress - 1)))


@torch.no_grad()
def move_average(average: nn.Module, trained: nn.Module, decay: float) -> None:
    """Move averaged weights towards the trained ones, batch norm's statistics too."""
    kept, new = ([*network.parameters(), *network.buffers()] for network in (average, trained))
    floats = [(a, b) for a, b in zip(kept, new, strict=True) if a.is_floating_point()]  # others count batches
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
