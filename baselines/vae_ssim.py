r"""Rival VAE-SSIM: a variational autoencoder trained on squared error and structural similarity.

It cannot reconstruct what its code does not hold, and a defect should be that.

$$ L = L_{MSE} + L_{SSIM} + \beta L_{KL} $$

**The paper.** Wei et al., "Real-time implementation of fabric defect detection based on variational automatic
encoder with structure similarity", Journal of Real-Time Image Processing (2020), compares autoencoders, VAEs and GANs on
fabric and chooses a VAE. It adds mean SSIM to the pixel loss and detects defects on the SSIM residual map between an image
and its reconstruction (from its public abstract). The CLGAN paper adds that the loss combines mean squared
error and SSIM.

**Left open:** the network, the sizes, the weights, the threshold, the treatment of anything but fabric.

**Chosen.** The trunk of the SSIM autoencoder that the idea comes from (Bergmann, Löwe, Fauser, Sattlegger, Steger,
"Improving unsupervised defect segmentation by applying structural similarity to autoencoders", VISAPP 2019), and its use
on MVTec AD (Bergmann et al., CVPR 2019): objects as whole images with a code of length 500, textures as overlapping
patches of half the side with 100. Squared error and 1 - SSIM at weight 1 on [0, 1] images; the KL per pixel, so that its
weight means the same at every size. At weight 1 and $\beta = 1$ squared error assumes pixel noise of sigma 0.7, so the code
would ignore much of a product's variation; $\beta = 0.1$ assumes 0.2. The native threshold is the 98th percentile of the
SSIM residual on held-out good images, as MVTec AD's authors fix theirs on validation images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.common import random_patches, require_positive, to_unit
from clgan_lib.calibration import quantile
from clgan_lib.model import ReconstructionModel, adam, calibrated, constant_then_linear
from clgan_lib.similarity import ssim_map

LOGVAR = 10.0  # beyond exp(+-10) a variance diverges, and one overflow would end the training
FIRST_LOGVAR = -4.0  # codes start with a sigma of 0.14: with the usual 1 the decoder first learns to ignore them
CODE_SIDE = 8  # the trunk halves until its feature map is this wide, at least; 8 in Bergmann's table


class VAESSIM(ReconstructionModel):
    """Wei et al. (2020), on Bergmann's trunk.

    Args:
        image_size: S.
        batch_size: B. Bergmann: 128; fewer make more steps of an equal number of images.
        patch: None reconstructs the whole image (objects); a number of pixels reconstructs overlapping patches of that
            side, which suits textures. Bergmann: half the image's side. It must be at most S.
        latent: length of the code z; None takes 500 for whole images, 100 for patches.
        width: channels of the first layers.
        mse_weight, ssim_weight: of the two reconstruction terms.
        beta: weight of the KL term, in [0, 1].
        warm_up: share of the training over which beta rises from 0, so that the code does not collapse early.
        learning_rate: Adam's, constant for the first half of training, then linear to 0. Bergmann: 2e-4, over 200 epochs of
            10 000 patches; a budget of a few thousand images needs more.
        quantile: share of held-out good pixels at or below the native threshold.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    threshold: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int = 32,
        patch: int | None = None,
        latent: int | None = None,
        width: int = 32,
        mse_weight: float = 1.0,
        ssim_weight: float = 1.0,
        beta: float = 0.1,
        warm_up: float = 0.1,
        learning_rate: float = 1e-3,
        quantile: float = 0.98,
    ) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size)
        size = image_size if patch is None else patch
        latent = latent or (500 if patch is None else 100)
        require_positive(latent=latent, width=width, learning_rate=learning_rate)
        if not 16 <= size <= image_size:
            raise ValueError(f"patch: expected 16 to image_size={image_size} pixels, or None for all of it; got {size}")
        if not (0 <= beta <= 1 and 0 <= warm_up <= 1 and 0 < quantile < 1):
            raise ValueError(f"beta, warm_up and quantile: expected shares of 1, got {beta}, {warm_up} and {quantile}")
        if min(mse_weight, ssim_weight) < 0 or mse_weight + ssim_weight == 0:
            raise ValueError(
                f"mse_weight and ssim_weight: expected >= 0, not both 0; got {mse_weight} and {ssim_weight}"
            )
        self.patch = size
        self.mse_weight, self.ssim_weight, self.beta, self.warm_up = mse_weight, ssim_weight, beta, warm_up
        self.quantile = quantile
        self.encoder, self.decoder = build_trunk(size, latent, width)
        self.optimizers = {"optimizer": adam(self.parameters(), learning_rate, beta1=0.9)}
        self.register_buffer("threshold", torch.tensor(torch.nan))

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """One step on B whole images, or on as many random patches as cover the area of B images."""
        self.train()
        self.scale_learning_rates(constant_then_linear(progress))
        if self.patch < self.image_size:
            images = random_patches(images, self.patch, (self.image_size // self.patch) ** 2)
        terms = self.losses(images, progress)
        self.minimise(terms["L_total"], "optimizer")
        return {name: term.detach() for name, term in terms.items()}

    def losses(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """Each term on ``(N, 3, P, P)`` images or patches, with z drawn from its posterior."""
        mean, logvar = self.encode(images)
        drawn = mean + torch.randn_like(mean) * (logvar / 2).exp()
        target, reconstructions = to_unit(images), self.decode(drawn)
        mse = F.mse_loss(reconstructions, target)
        dissimilarity = 1 - ssim_map(target, reconstructions).mean()
        kl = kl_divergence(mean, logvar) / target[0].numel()
        beta = self.beta * (min(1.0, progress / self.warm_up) if self.warm_up else 1.0)
        total = self.mse_weight * mse + self.ssim_weight * dissimilarity + beta * kl
        return {"L_total": total, "L_MSE": mse, "L_SSIM": dissimilarity, "L_KL": kl}

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, float32 ``(N, z)`` each, of ``(N, 3, P, P)`` in [-1, 1]."""
        mean, logvar = self.encoder(images).flatten(1).float().chunk(2, 1)
        return mean, logvar.clamp(-LOGVAR, LOGVAR)

    def decode(self, code: Tensor) -> Tensor:
        """``(N, z)`` to float32 images ``(N, 3, P, P)`` in [0, 1]."""
        return torch.sigmoid(self.decoder(code[:, :, None, None]).float())

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """From the mean of z; patches overlap by half or more, and where they do their mean is taken."""
        self.eval()
        last = self.image_size - self.patch
        steps = -(-2 * last // self.patch)  # as few as keep strides at half a patch or less
        places = [round(last * i / steps) for i in range(steps + 1)] if steps else [0]
        total, count = torch.zeros_like(images), torch.zeros_like(images[:1, :1])
        for top in places:
            for left in places:
                window = (..., slice(top, top + self.patch), slice(left, left + self.patch))
                total[window] += 2 * self.decode(self.encode(images[window])[0]) - 1
                count[window] += 1
        return total / count

    @torch.no_grad()
    def native_map(self, images: Tensor) -> Tensor:
        """The SSIM residual, 1 - SSIM, mean of the channels: ``(B, S, S)`` in [0, 2]."""
        return 1 - ssim_map(to_unit(images), to_unit(self.reconstruct(images))).mean(1)

    def calibrate(self, images: Tensor) -> None:
        """Set the native threshold on held-out good images."""
        self.threshold.fill_(quantile(self.native_map(images).cpu().numpy(), self.quantile))

    def detect_native(self, images: Tensor) -> Tensor:
        """Where the SSIM residual exceeds the threshold of `calibrate`; bool ``(B, S, S)``."""
        return self.native_map(images) > calibrated(self.threshold)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    r"""KL of N(mean, exp(logvar)) from N(0, 1), summed over z, a mean over the batch.

    $$ KL = \frac{1}{2} \sum_j (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1) $$

    Args:
        mean, logvar: ``(N, z)``.

    Returns:
        A scalar >= 0, in nats.
    """
    return (mean.square() + logvar.exp() - logvar - 1).sum(1).mean() / 2


def build_trunk(size: int, latent: int, width: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Bergmann's encoder and its mirror image, halved as often as the size allows.

    At 128 pixels the encoder is his table: 4x4 stride-2 convolutions to 32, 32, 64 and 128 channels, 3x3 ones between, and
    a valid 8x8 one to the code; LeakyReLU 0.2, no batch norm. Each doubling of the size puts one more halving in front.

    Args:
        size: side of the input in pixels.
        latent: z; the encoder gives 2 z channels, mean and log variance.
        width: channels of the first layers, 32 in his table.

    Raises:
        ValueError: if `size` cannot be halved often enough.
    """
    halvings = 0
    while size >> (halvings + 1) >= CODE_SIDE:
        halvings += 1
    if size % 2**halvings:
        raise ValueError(
            f"patch or image_size: {size} pixels cannot be halved {halvings} times; use a multiple of {2**halvings}"
        )
    side = size >> halvings
    early = [width] * max(0, halvings - 2)  # the layers in front of the one to 64 channels
    downs = [*early, 2 * width, 4 * width][-halvings:]
    follow = {4 * width: [2 * width, width], 2 * width: [2 * width]}  # the 3x3 layers after a halving
    channels, encoder, decoder = 3, [], []  # type: int, list[nn.Module], list[nn.Module]
    for i, down in enumerate(downs):
        encoder += [nn.Conv2d(channels, down, 4, 2, 1), nn.LeakyReLU(0.2)]
        decoder[:0] = [nn.ConvTranspose2d(down, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = down
        for same in follow.get(down, [width] if i == len(early) - 1 else []):
            encoder += [nn.Conv2d(channels, same, 3, 1, 1), nn.LeakyReLU(0.2)]
            decoder[:0] = [nn.Conv2d(same, channels, 3, 1, 1), nn.LeakyReLU(0.2)]
            channels = same
    decoder[:0] = [nn.ConvTranspose2d(latent, channels, side), nn.LeakyReLU(0.2)]
    to_code = nn.Conv2d(channels, 2 * latent, side)
    nn.Sequential(*encoder, to_code, *decoder).apply(_initialise)
    with torch.no_grad():
        to_code.bias[latent:] = FIRST_LOGVAR  # type: ignore[index]
    return nn.Sequential(*encoder, to_code), nn.Sequential(*decoder[:-1])  # no activation after the last layer


def _initialise(layer: nn.Module) -> None:
    """He's: with smaller weights the signal vanishes over ten layers, and the KL keeps the code uninformative."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(layer.weight, 0.2, "fan_in" if isinstance(layer, nn.Conv2d) else "fan_out")
        layer.bias.data.zero_()  # type: ignore[union-attr]
