r"""Rival UDCAE: a U-shaped denoising convolutional autoencoder that treats a defect as noise.

$$ L = \| x - f(x + n) \|^2, \; n \sim N(0, \sigma^2) \text{ in training only} $$

**The paper.** Zhang, Tan, Lu, Ge, Xu, "Yarn-dyed shirt piece defect detection based on a U-shaped denoising convolutional
autoencoder" (in Chinese), Journal of Xidian University 48(3), 2021, trains on defect-free pieces of yarn-dyed cloth, one
model a pattern, and detects from the residual between an image and its reconstruction. The same authors' patent
CN111402197 names the steps after the network: to grey, Gaussian filter, absolute difference, threshold, closing.

**Left open** (to us, from the public records): the layers, which of them are joined by skips, the noise, the threshold.
The group's later AGUR-Net (Zhang, Wang, Lu, Yao, Hu, Textile Research Journal 93, 2023) attributes copied defects to
redundant information in the skips.

**Chosen.** Four stride-2 convolutions to 32, 64, 128 and 256 channels and four back, batch norm and ReLU; noise of 0.1 on
[0, 1] images; squared error; Adam at 1e-3. Skips join the two deepest levels that can be joined: with all of them the
finest one carries eight numbers for each three of the image, and copying gives a small error soonest (`skips`).
Native threshold: mean + 3 sigma of each image's own residual, as in the group's other papers and the CLGAN paper's eq. 8.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.common import require_positive, to_unit
from clgan_lib.detection import LUMA
from clgan_lib.model import ReconstructionModel, adam, blur5, constant_then_linear

LEVELS = 4  # halvings: a multiple of 16 pixels


class UDCAE(ReconstructionModel):
    """Zhang et al. (2021).

    Args:
        image_size: S, a multiple of 16.
        batch_size: B; batch norm wants a few.
        width: channels after the first layer; doubled at each of the three next.
        skips: how many levels are joined, the deepest first: 0 (an hourglass) to 3 (a full U, which copies).
        noise: sigma of the Gaussian noise, on the scale [0, 1].
        learning_rate: Adam's, constant for the first half of training, then linear to 0.
        k: the native threshold lies k standard deviations above the mean residual of the image.
        closing: side of the native closing's square in pixels, odd.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int = 8,
        width: int = 32,
        skips: int = 2,
        noise: float = 0.1,
        learning_rate: float = 1e-3,
        k: float = 3.0,
        closing: int = 3,
    ) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size)
        require_positive(width=width, learning_rate=learning_rate)
        if image_size % 2**LEVELS:
            raise ValueError(f"image_size: UDCAE needs a multiple of {2**LEVELS}, got {image_size}")
        if skips not in range(LEVELS):
            raise ValueError(f"skips: expected 0 to {LEVELS - 1} joined levels, got {skips!r}")
        if noise < 0 or k < 0:
            raise ValueError(f"noise and k: expected numbers >= 0, got {noise} and {k}")
        if closing < 1 or closing % 2 == 0:
            raise ValueError(f"closing: expected an odd number of pixels >= 1, got {closing}")
        self.noise, self.k, self.closing = noise, k, closing
        self.network = UNet(width, skips)
        self.optimizers = {"optimizer": adam(self.parameters(), learning_rate, beta1=0.9)}

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """One step on B noisy images."""
        self.train()
        self.scale_learning_rates(constant_then_linear(progress))
        noisy = images + 2 * self.noise * torch.randn_like(images)  # twice: [-1, 1] is twice as wide as [0, 1]
        loss = F.mse_loss(to_unit(self.network(noisy)), to_unit(images))
        self.minimise(loss, "optimizer")
        return {"L_MSE": loss.detach()}

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        self.eval()
        return self.network(images)

    @torch.no_grad()
    def detect_native(self, images: Tensor) -> Tensor:
        """Grey, blur, absolute difference, mean + k sigma of the image itself, closing; bool ``(B, S, S)``."""
        luma = torch.tensor(LUMA, device=images.device).view(3, 1, 1)
        image, reconstruction = ((to_unit(x) * luma).sum(1, keepdim=True) for x in (images, self.reconstruct(images)))
        residual = (blur5(image) - blur5(reconstruction)).abs()
        std, mean = torch.std_mean(residual, (1, 2, 3), correction=0, keepdim=True)
        return close(residual > mean + self.k * std, self.closing)[:, 0]  # ">": without any residual nothing is marked


class UNet(nn.Module):
    """The network: ``(B, 3, S, S)`` in [-1, 1] to the same, by tanh.

    Args:
        width: channels after the first layer.
        skips: levels joined, the deepest first.
    """

    def __init__(self, width: int, skips: int) -> None:
        super().__init__()
        channels = [3] + [width * 2**level for level in range(LEVELS)]  # 3, 32, 64, 128, 256 at S, S/2 ... S/16
        self.first_skip = LEVELS - skips  # levels first_skip ... LEVELS - 1 are handed across
        self.downs = nn.ModuleList(_block(nn.Conv2d, channels[i], channels[i + 1]) for i in range(LEVELS))
        inputs = [channels[i] * (2 if self.first_skip <= i < LEVELS else 1) for i in range(LEVELS + 1)]
        self.ups = nn.ModuleList(_block(nn.ConvTranspose2d, inputs[i], channels[i - 1]) for i in range(LEVELS, 1, -1))
        self.last = nn.ConvTranspose2d(inputs[1], 3, 4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        levels = [images]
        for down in self.downs:
            levels.append(down(levels[-1]))
        features = levels[LEVELS]
        for level, up in zip(range(LEVELS - 1, 0, -1), self.ups, strict=True):
            features = up(features)
            if level >= self.first_skip:
                features = torch.cat([features, levels[level]], 1)
        return torch.tanh(self.last(features).float())  # in bf16 values near white are half a grey level apart


def _block(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], inputs: int, outputs: int) -> nn.Sequential:
    """Half or twice the resolution, batch norm, ReLU."""
    return nn.Sequential(kind(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def close(masks: Tensor, size: int) -> Tensor:
    """Morphological closing with a size x size square, zeros outside the image: bool ``(B, 1, H, W)``."""
    margin = size // 2
    padded = F.pad(masks.float(), [2 * margin] * 4)
    closed = -F.max_pool2d(-F.max_pool2d(padded, size, 1), size, 1)
    return closed > 0
