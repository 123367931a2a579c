r"""Rival DCGAN: a GAN learns good patches, an encoder finds the code of the most similar one.

**The paper.** Hu, Huang, Wang, Li, Xu, Huang, "Unsupervised fabric defect detection based on a deep convolutional
generative adversarial network", Textile Research Journal 90(3-4), 2020: a DCGAN and an encoder, trained on small patches of
a few defect-free images in successive stages, each with its own strategy. The query is reconstructed without its defects.
The residual map and a likelihood map of defects are fused and thresholded (its public abstract).
A follow-up by others with the same three stages, GAN, encoder, classifier, is "Multi-stage unsupervised fabric defect
detection based on DCGAN", The Visual Computer (2022).

**Left open:** sizes, losses of stages 2 and 3, what the likelihood is trained against, how the two maps are put on one
scale. The CLGAN paper's Fig. 4 shows seams: patches are reconstructed side by side.

**Chosen.** Networks and initialisation of DCGAN (Radford, Metz, Chintala, ICLR 2016). Stage 1, its GAN game:

$$ L_D = -\log D(x) - \log(1 - D(G(z))), \quad L_G = -\log D(G(z)) $$

Stage 2, with G and D frozen, f-AnoGAN's encoder (Schlegl et al., Medical Image Analysis 54, 2019, its "izi_f"), where f is
the input of D's last layer:

$$ L_E = \| x - G(E(x)) \|^2 + \kappa \| f(x) - f(G(E(x))) \|^2 $$

Stage 3, D alone as a likelihood: good patches against negatives, which are stated (`negatives`): patches that G
generates, and good patches with a rectangle of another patch pasted in, rotated and recoloured. D has no opponent now and
learns at G's rate. Its batch norm stays as after stage 1, so that D predicts in use as in training. The native score is the
mean of residual and likelihood, each z-scored on held-out good images; the threshold is its 98th percentile there. The
suite's own score (`anomaly_map`) stays the residual, as for every other method, so that tables compare models and not
detectors.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.common import from_tiles, paste, random_patches, require_positive, to_tiles
from clgan_lib.calibration import quantile
from clgan_lib.layers import ImageTanh
from clgan_lib.losses import adversarial_loss
from clgan_lib.model import ReconstructionModel, adam, calibrated

LARGEST_PATCH = 64  # the paper's


class DCGAN(ReconstructionModel):
    """Hu et al. (2020).

    Args:
        image_size: S.
        batch_size: B images a step, each giving `patches` patches; DCGAN's batch is 128 patches, 8 x 16, half of
            which makes twice the steps.
        patch: side of a patch in pixels, a divisor of S; None takes the largest up to 64 and S/2.
        patches: patches drawn from each image of a step; together they count as one image seen.
        latent: length of z, uniform in [-1, 1].
        width: channels of D's first and G's last layer.
        gan_share, likelihood_share: shares of the training that stages 1 and 3 take; stage 2 has the rest.
        kappa: weight of the feature error of stage 2.
        negatives: of stage 3: ``"generated"``, ``"pasted"``, or ``"both"``.
        learning_rate: of G's and E's Adam, betas (0.5, 0.999). DCGAN: 2e-4, over millions of images.
        d_learning_rate: of D's in stage 1. Slower than G's: at one rate D separates real from generated within a hundred
            steps on so few images, and G gets no useful gradient.
        quantile: share of held-out good pixels at or below the native threshold.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    calibration: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int = 4,
        patch: int | None = None,
        patches: int = 16,
        latent: int = 100,
        width: int = 64,
        gan_share: float = 0.6,
        likelihood_share: float = 0.1,
        kappa: float = 1.0,
        negatives: Literal["generated", "pasted", "both"] = "both",
        learning_rate: float = 5e-4,
        d_learning_rate: float = 1e-4,
        quantile: float = 0.98,
    ) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size)
        require_positive(
            patches=patches, latent=latent, width=width, learning_rate=learning_rate, d_learning_rate=d_learning_rate
        )
        if min(gan_share, likelihood_share, kappa) < 0 or gan_share + likelihood_share > 1 or not 0 < quantile < 1:
            raise ValueError(
                "gan_share, likelihood_share, kappa and quantile: expected numbers >= 0, the shares at most 1 together; "
                f"got {gan_share}, {likelihood_share}, {kappa} and {quantile}"
            )
        if negatives not in ("generated", "pasted", "both"):
            raise ValueError(f"negatives: expected 'generated', 'pasted' or 'both', got {negatives!r}")
        self.patch = choose_patch(image_size, patch)
        self.patches, self.latent, self.kappa, self.negatives = patches, latent, kappa, negatives
        self.encoder_from, self.likelihood_from = gan_share, 1 - likelihood_share
        self.quantile, self.learning_rate = quantile, learning_rate
        self.generator, self.discriminator, self.encoder = build_networks(self.patch, latent, width)
        self.optimizers = {
            "G": adam(self.generator.parameters(), learning_rate),
            "D": adam(self.discriminator.parameters(), d_learning_rate),
            "E": adam(self.encoder.parameters(), learning_rate),
        }
        # mean and sigma of the residual, of the likelihood, then the threshold of their mean z-score
        self.register_buffer("calibration", torch.full((5,), torch.nan))

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """One step of the stage that `progress` is in, on `patches` patches of each of B images."""
        self.eval()  # each stage switches on what it trains
        patches = random_patches(images, self.patch, self.patches)
        if progress < self.encoder_from:
            return self.gan_step(patches)
        if progress < self.likelihood_from:
            return self.encoder_step(patches)
        return self.likelihood_step(patches)

    def gan_step(self, patches: Tensor) -> dict[str, Tensor]:
        """Stage 1: D's update, then G's, on ``(N, 3, P, P)``."""
        self.generator.train()
        self.discriminator.train()
        fake = self.generator(self.draw_codes(len(patches)))
        # Two calls: one concatenated batch would share its batch norm between real and fake.
        loss_real = adversarial_loss(self.discriminator(patches), True)
        loss_fake = adversarial_loss(self.discriminator(fake.detach()), False)
        self.minimise(loss_real + loss_fake, "D")
        self.discriminator.requires_grad_(False)  # its gradients would be computed for nothing
        loss_g = adversarial_loss(self.discriminator(fake), True)
        self.minimise(loss_g, "G")
        self.discriminator.requires_grad_(True)
        terms = {"L_D_real": loss_real, "L_D_fake": loss_fake, "L_GAN_G": loss_g}
        return {name: term.detach() for name, term in terms.items()}

    def encoder_step(self, patches: Tensor) -> dict[str, Tensor]:
        """Stage 2: E's update; G and D are frozen, batch norm too."""
        self.encoder.train()
        for network in (self.generator, self.discriminator):
            network.requires_grad_(False)
        reconstruction = self.generator(self.encoder(patches))
        image = F.mse_loss(reconstruction.float(), patches)
        with torch.no_grad():
            target = self.discriminator.features(patches)
        feature = F.mse_loss(self.discriminator.features(reconstruction).float(), target.float())
        total = image + self.kappa * feature
        self.minimise(total, "E")
        for network in (self.generator, self.discriminator):
            network.requires_grad_(True)
        return {"L_E": total.detach(), "L_image": image.detach(), "L_feature": feature.detach()}

    def likelihood_step(self, patches: Tensor) -> dict[str, Tensor]:
        """Stage 3: D's update, good patches against negatives."""
        loss_good = adversarial_loss(self.discriminator(patches), True)
        loss_negative = adversarial_loss(self.discriminator(self.draw_negatives(patches)), False)
        self.optimizers["D"].param_groups[0]["lr"] = self.learning_rate  # no opponent any more: no reason to be slow
        self.minimise(loss_good + loss_negative, "D")
        return {"L_good": loss_good.detach(), "L_negative": loss_negative.detach()}

    @torch.no_grad()
    def draw_negatives(self, patches: Tensor) -> Tensor:
        """As many negatives as patches; for ``"both"``, half of each."""
        count = {"generated": len(patches), "pasted": 0, "both": len(patches) // 2}[self.negatives]
        return torch.cat([self.generator(self.draw_codes(count)).float(), paste(patches[count:])])

    def draw_codes(self, count: int) -> Tensor:
        """Random z, ``(count, latent)``."""
        return 2 * torch.rand(count, self.latent, device=self.device) - 1

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Tile by tile, side by side: the seams are the method's."""
        self.eval()
        tiles = to_tiles(images, self.patch)
        return from_tiles(self.generator(self.encoder(tiles)), self.image_size)

    @torch.no_grad()
    def likelihood_map(self, images: Tensor) -> Tensor:
        """How improbable a good patch is around each pixel, -logit D, ``(B, S, S)``.

        D's windows are a quarter of a patch apart; a pixel has the mean of the windows that hold it.
        """
        self.eval()
        starts = range(0, self.image_size - self.patch + 1, max(1, self.patch // 4))
        total, count = torch.zeros_like(images[:, 0]), torch.zeros_like(images[:1, 0])
        for top in starts:
            for left in starts:
                rows, columns = slice(top, top + self.patch), slice(left, left + self.patch)
                total[:, rows, columns] -= self.discriminator(images[..., rows, columns]).view(-1, 1, 1)
                count[:, rows, columns] += 1
        return total / count

    def native_map(self, images: Tensor) -> Tensor:
        """The fused score: mean of residual and likelihood in standard deviations of good images; ``(B, S, S)``."""
        scales = calibrated(self.calibration)
        residual, likelihood = self.anomaly_map(images), self.likelihood_map(images)
        return ((residual - scales[0]) / scales[1] + (likelihood - scales[2]) / scales[3]) / 2

    def calibrate(self, images: Tensor) -> None:
        """Set the two scales and the native threshold on held-out good images."""
        for i, scores in enumerate((self.anomaly_map(images), self.likelihood_map(images))):
            self.calibration[2 * i], self.calibration[2 * i + 1] = scores.mean(), scores.std() + 1e-6
        self.calibration[4] = 0.0
        self.calibration[4] = quantile(self.native_map(images).cpu().numpy(), self.quantile)

    def detect_native(self, images: Tensor) -> Tensor:
        """Where the fused score exceeds the threshold of `calibrate`; bool ``(B, S, S)``."""
        return self.native_map(images) > calibrated(self.calibration)[4]


class Discriminator(nn.Module):
    """D, with its penultimate features.

    Args:
        channels: of its stride-2 convolutions.
        side: of its last feature map.
    """

    def __init__(self, channels: list[int], side: int) -> None:
        super().__init__()
        self.features = _halvings(channels)
        self.last = nn.Conv2d(channels[-1], 1, side)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits, ``(N,)``: above 0 for "a good patch"."""
        return self.last(self.features(patches)).flatten()


def build_networks(patch: int, latent: int, width: int) -> tuple[nn.Sequential, Discriminator, nn.Sequential]:
    """G, D and E for P x P patches: DCGAN's, halved until 4 to 7 pixels are left (four times at 64), N(0, 0.02).

    G: ``(N, z) -> (N, 3, P, P)`` in [-1, 1]. E, shaped like D: ``(N, 3, P, P) -> (N, z)`` in [-1, 1], where G's codes lie.
    """
    halvings = (patch // 4).bit_length() - 1
    side = patch >> halvings
    channels = [width << i for i in range(halvings)]  # 64, 128, 256, 512 at 64 pixels
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, channels[-1], side, bias=False),
    ]
    for inputs, outputs in zip(channels[::-1], [*channels[-2::-1], 3], strict=True):
        layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=outputs == 3)]
    generator = nn.Sequential(*layers, ImageTanh())
    discriminator = Discriminator(channels, side)
    encoder = nn.Sequential(_halvings(channels), nn.Conv2d(channels[-1], latent, side), nn.Flatten(), nn.Tanh())
    for network in (generator, discriminator, encoder):
        network.apply(_initialise)
    return generator, discriminator, encoder


def _halvings(channels: list[int]) -> nn.Sequential:
    """4x4 stride-2 convolutions with LeakyReLU 0.2, batch norm in all but the first, as DCGAN's D has it."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for inputs, outputs in zip(channels, channels[1:], strict=False):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def _initialise(layer: nn.Module) -> None:
    """DCGAN's: weights N(0, 0.02), batch norm's N(1, 0.02)."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)


def choose_patch(image_size: int, patch: int | None) -> int:
    """The side of a patch: as asked, or the largest that tiles the image, is a multiple of 8, and leaves seams to see.

    Raises:
        ValueError: if the patch, or no patch, fits.
    """
    fitting = [
        p for p in range(8, image_size + 1, 8) if image_size % p == 0 and not p % (1 << ((p // 4).bit_length() - 1))
    ]
    if patch is None:
        small = [p for p in fitting if p <= min(LARGEST_PATCH, image_size // 2)]
        if not small:
            raise ValueError(f"image_size: no patch tiles {image_size} pixels; use a multiple of 16")
        return small[-1]
    if patch not in fitting:
        known = ", ".join(map(str, fitting)) or "none"
        raise ValueError(
            f"patch: {patch!r} does not tile image_size={image_size} or cannot be halved; possible: {known}"
        )
    return patch
