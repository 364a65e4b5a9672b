"""PCA codec: a linear autoencoder from the principal components of square patches.

The starter's codec. It is fitted in seconds, has a few thousand parameters, and its latents are
easy to diffuse. It has the interface that a diffusers pipeline expects of its ``vae``. This
module must keep its name: the ``model_index.json`` of shipped bases, and of bases that people
trained, contains it.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor, nn


class PatchPCA(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Encode each patch by its first principal components, half-whitened.

    ``z = S W^T (x - m)``, ``x ≈ m + W S^-1 z`` for a patch ``x`` of ``3 p^2`` values, ``W`` the
    first C eigenvectors of their covariance, ``S`` the diagonal ``1 / (c std^0.5)`` with ``c``
    such that the latents' mean variance is 1. Dividing by the square root of the standard
    deviation keeps some of the order of importance that full whitening would erase.

    Args:
        patch_pixels: Side ``p`` of a patch, a power of two.
        latent_channels: Components kept, ``C``.
        block_out_channels: Only its length is read: pipelines take the scale from it.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        patch_pixels: int = 8,
        latent_channels: int = 16,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        values = 3 * patch_pixels**2
        self.mean = nn.Parameter(torch.zeros(values), requires_grad=False)
        self.components = nn.Parameter(
            torch.zeros(latent_channels, values), requires_grad=False
        )
        self.scale = nn.Parameter(torch.ones(latent_channels), requires_grad=False)

    def encode(self, pixels: Tensor, return_dict: bool = True) -> AutoencoderTinyOutput:
        """Return the latents ``[B, C, H/p, W/p]`` of pixels in [-1, 1]."""
        del return_dict
        side = self.config.patch_pixels
        rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
        patches = nn.functional.unfold(pixels, side, stride=side).transpose(1, 2)
        latents = (patches - self.mean) @ (self.scale[:, None] * self.components).T
        return AutoencoderTinyOutput(
            latents=latents.transpose(1, 2).reshape(len(pixels), -1, rows, columns)
        )

    def decode(
        self, latents: Tensor, return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor]:
        """Return pixels around [-1, 1], ``[B, 3, H p, W p]``."""
        side = self.config.patch_pixels
        flat = latents.flatten(2).transpose(1, 2)
        patches = flat @ (self.components / self.scale[:, None]) + self.mean
        size = (latents.shape[2] * side, latents.shape[3] * side)
        pixels = nn.functional.fold(patches.transpose(1, 2), size, side, stride=side)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)


def fit(pixels: Tensor, patch_pixels: int, channels: int) -> PatchPCA:
    """Fit the codec to pictures.

    Args:
        pixels: Pictures in [-1, 1], ``[N, 3, H, W]``; a few hundred are enough.
        patch_pixels: Side of a patch; a power of two.
        channels: Principal components kept.
    """
    halvings = patch_pixels.bit_length() - 1
    if 2**halvings != patch_pixels:
        raise ValueError(f"patch_pixels should be a power of two, is {patch_pixels}")
    codec: PatchPCA = PatchPCA(
        patch_pixels=patch_pixels,
        latent_channels=channels,
        block_out_channels=(1,) * (halvings + 1),
    )
    patches = nn.functional.unfold(pixels.double(), patch_pixels, stride=patch_pixels)
    flat = patches.transpose(1, 2).flatten(0, 1)
    mean = flat.mean(0)
    variances, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    order = variances.argsort(descending=True)[:channels]
    components = vectors[:, order].T
    # An eigenvector's sign is arbitrary; fix it, so that two machines agree.
    largest = components.abs().argmax(1, keepdim=True)
    components = components * components.gather(1, largest).sign()
    std = variances[order].clamp_min(0).sqrt()
    half_whitened = std.clamp_min(1e-12).sqrt()
    scale = 1 / (half_whitened * std.div(half_whitened).square().mean().sqrt())
    codec.mean.data.copy_(mean)
    codec.components.data.copy_(components)
    codec.scale.data.copy_(scale)
    codec.eval()
    return codec
