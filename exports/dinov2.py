"""DINOv2 ViT-L/14 as DeDoDe-G uses it: image to normalised patch tokens. Names follow the published checkpoint.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.architectures import DINOV2_HEADS, DINOV2_PATCH

_TRAINED_GRID = 37  # patches a side: 518 pixels


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(attended.transpose(1, 2).reshape(batch, tokens, width)))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1 = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width)
        self.ls2 = _LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return cast(Tensor, x + self.ls2(self.mlp(self.norm2(x))))


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, DINOV2_PATCH, DINOV2_PATCH)

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.proj(image).flatten(2).transpose(1, 2))


class DINOv2(nn.Module):
    """The frozen backbone of DeDoDe-G."""

    def __init__(self, width: int = 1024, depth: int = 24, heads: int = DINOV2_HEADS) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINED_GRID**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # unused here; in the checkpoint
        self.patch_embed = _PatchEmbedding(width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 14 -> (B, width, H / 14, W / 14)."""
        rows, columns = image.shape[-2] // DINOV2_PATCH, image.shape[-1] // DINOV2_PATCH
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self._positions(rows, columns).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        patches: Tensor = self.norm(x)[:, 1:]
        return patches.transpose(1, 2).reshape(len(x), -1, rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The trained grid of position embeddings, resized as DINOv2 does: by a factor, with 0.1 patch to spare.

        Bicubic interpolation as two products with matrices that are made from the sizes: an exported file keeps the
        sizes free, where `F.interpolate` would bake them in.
        """
        trained = self.pos_embed.float()
        grid = trained[0, 1:].reshape(_TRAINED_GRID, _TRAINED_GRID, -1)
        sides = torch.stack([torch.full((), side, dtype=grid.dtype, device=grid.device) for side in (rows, columns)])
        as_trained = (sides == _TRAINED_GRID).all()
        across = torch.einsum("ij,jkc->ikc", _bicubic(rows, as_trained, grid), grid)
        resized = torch.einsum("lk,ikc->ilc", _bicubic(columns, as_trained, grid), across)
        return torch.cat((trained[:, :1], resized.reshape(1, rows * columns, -1)), dim=1)


def _bicubic(size: int, as_trained: Tensor, like: Tensor) -> Tensor:
    """(size, _TRAINED_GRID) weights of `F.interpolate(mode="bicubic", scale_factor=(size + 0.1) / _TRAINED_GRID)`.

    Keys' kernel with a = -0.75, half-pixel centres, places beyond the ends taken from the ends. DINOv2 takes the grid
    `as_trained` as it is.
    """
    a = -0.75
    whole = torch.arange(size, dtype=like.dtype, device=like.device)
    source = torch.where(as_trained, whole, (whole + 0.5) * (_TRAINED_GRID / (size + 0.1)) - 0.5)
    tap = source.floor()[:, None] + torch.arange(-1, 3, device=like.device)  # (size, 4)
    t = (source[:, None] - tap).abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    weight = torch.where(t <= 1, near, far)
    place = tap.clamp(0, _TRAINED_GRID - 1)[..., None] == torch.arange(_TRAINED_GRID, device=like.device)
    return (weight[..., None] * place).sum(dim=1)
