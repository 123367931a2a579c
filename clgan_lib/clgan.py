r"""CLGAN as the paper has it: G and D play a GAN game, and each patch of G's output must recognise its input patch.

$$ L_{total} = \lambda_x L_{PatchNCE}(G, H, X) + \lambda_y L_{PatchNCE}(G, H, Y) + L_{GAN}(G, D, X, Y) \quad (6) $$

Every open reading of the paper is one named argument of `CLGAN`; `notebooks/03_networks.ipynb` lists them with the paper's
words.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from clgan_lib import compiled
from clgan_lib.layers import Norm
from clgan_lib.losses import GanLoss, adversarial_loss, generator_loss, patch_nce_over_taps
from clgan_lib.model import ReconstructionModel, adam, constant_then_linear
from clgan_lib.networks import Generator, PatchDiscriminator, ProjectionHead


class CLGAN(ReconstructionModel):
    """Zhang et al. (2023), on CUT's networks and schedule.

    Args:
        image_size: S, a multiple of 4 (of 8 with ``downs=3``), at least 32.
        batch_size: B; 1 in CUT.
        width: channels of G and D after their first layer; 64 in the paper.
        blocks: residual blocks of G.
        norm: of G.
        downs: halvings in G, 2 or 3.
        pairs: where eq. 6's Y comes from. X and Y are both good images and PatchNCE is a sum over images, so one batch can
            stand for both (``"shared"``, half the cost); ``"two_draws"`` is eq. 6 to the letter.
        gan: see `clgan_lib.losses.adversarial_loss`.
        head: ``"fc4"`` Table 2, four layers with ReLU; ``"cut2"`` CUT's two, the last without ReLU.
        last_relu: of ``"fc4"``.
        d_norm, d_first_norm: of D, see `PatchDiscriminator`.
        patches: $S_l$ of eq. 3, places a tap.
        temperature: $\\tau$ of eq. 2.
        lambda_x, lambda_y: weights of eq. 6.
        lambda_gan: weight of L_GAN in eq. 6; 1 in the paper.
        learning_rate: Adam's, constant for the first half of training, then linear to 0.

    Raises:
        ValueError: naming the argument that cannot be.
    """

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int = 1,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        downs: int = 2,
        pairs: Literal["shared", "two_draws"] = "shared",
        gan: GanLoss = "log",
        head: Literal["fc4", "cut2"] = "fc4",
        last_relu: bool = True,
        d_norm: Norm = "batch",
        d_first_norm: bool = True,
        patches: int = 256,
        temperature: float = 0.07,
        lambda_x: float = 1.0,
        lambda_y: float = 1.0,
        lambda_gan: float = 1.0,
        learning_rate: float = 2e-4,
    ) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size)
        if image_size < 32 or image_size % 2**downs:
            raise ValueError(f"image_size: CLGAN needs a multiple of {2**downs}, at least 32, got {image_size}")
        if pairs not in ("shared", "two_draws") or head not in ("fc4", "cut2"):
            raise ValueError(f"pairs: 'shared' or 'two_draws', head: 'fc4' or 'cut2'; got {pairs!r} and {head!r}")
        self.draws = 2 if pairs == "two_draws" else 1
        self.gan, self.patches, self.temperature = gan, patches, temperature
        self.lambda_x, self.lambda_y, self.lambda_gan = lambda_x, lambda_y, lambda_gan
        self.generator = Generator(width, blocks, norm=norm, downs=downs)
        self.discriminator = PatchDiscriminator(width, norm=d_norm, first_norm=d_first_norm)
        layers, relu = (4, last_relu) if head == "fc4" else (2, False)
        self.heads = nn.ModuleList(ProjectionHead(c, layers=layers, last_relu=relu) for c in self.generator.channels)
        # CUT has an Adam of its own for H; with equal settings that is one Adam over both.
        self.optimizers = {
            "G": adam([*self.generator.parameters(), *self.heads.parameters()], learning_rate),
            "D": adam(self.discriminator.parameters(), learning_rate),
        }

    def compile_networks(self) -> None:
        """G's passes and D, each whole, for one shape of images: norms, ReLUs and borders join."""
        how: dict[str, Any] = {"dynamic": False, "options": compiled.OPTIONS}
        compiled.fuse(self)
        g = self.generator
        g.forward_with_taps = torch.compile(g.forward_with_taps, **how)  # type: ignore[method-assign]
        g.encode = torch.compile(g.encode, **how)  # type: ignore[method-assign]
        self.discriminator.compile(**how)

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """D's update, then G's and H's (Fig. 1), on ``(draws * B, 3, S, S)``; see `ReconstructionModel`."""
        self.train()
        self.scale_learning_rates(constant_then_linear(progress))
        fake, taps = self.generator.forward_with_taps(images)
        terms = self.update_discriminator(images, fake.detach())
        return terms | self.update_generator(fake, taps)

    def update_discriminator(self, images: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """One step of D on eq. 1.

        Args:
            images: X, or X and Y, ``(draws * B, 3, S, S)``; D's real side is Y, the last B.
            fake: G's output for them, detached; D's other side is G(X), the first B.
        """
        count = len(images) // self.draws
        self.discriminator.requires_grad_(True)
        # Two calls: one concatenated batch would share its batch norm, and with it the logits, between real and fake.
        loss_fake = adversarial_loss(self.discriminator(fake[:count]), False, gan=self.gan)
        loss_real = adversarial_loss(self.discriminator(images[-count:]), True, gan=self.gan)
        self.minimise((loss_real + loss_fake) / 2, "D")
        return {"L_D_real": loss_real.detach(), "L_D_fake": loss_fake.detach()}

    def update_generator(self, fake: Tensor, taps: list[Tensor]) -> dict[str, Tensor]:
        """One step of G and H on eq. 6.

        Args:
            fake: G's output with its graph, ``(draws * B, 3, S, S)``.
            taps: the input's features from the same pass.
        """
        count = len(fake) // self.draws
        self.discriminator.requires_grad_(False)  # its gradients would be computed and thrown away
        gan = generator_loss(self.discriminator(fake[:count]), gan=self.gan)
        contrast = self.contrast(fake, taps)  # (draws * B,)
        nce_x, nce_y = contrast[:count].mean(), contrast[-count:].mean()
        total = self.lambda_x * nce_x + self.lambda_y * nce_y + self.lambda_gan * gan
        self.minimise(total, "G")
        terms = {"L_total": total, "L_GAN_G": gan, "L_PatchNCE_X": nce_x, "L_PatchNCE_Y": nce_y}
        return {name: term.detach() for name, term in terms.items()}

    def contrast(self, fake: Tensor, taps: list[Tensor]) -> Tensor:
        """PatchNCE of each image, eq. 3 to 5, a mean over taps and places: ``(B,)`` for B images.

        Args:
            fake: G's output, ``(B, 3, S, S)``.
            taps: features of its input, as `Generator.encode` gives them.
        """
        queries = self.generator.encode(fake)
        return patch_nce_over_taps(self.heads, queries, taps, patches=self.patches, temperature=self.temperature)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        self.eval()
        return self.generator(images)
