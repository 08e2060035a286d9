"""DINOv2 ViT-L/14 as DeDoDe-G uses it: image to normalised patch tokens. Names follow the published checkpoint.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 14  # pixels
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
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.proj(image).flatten(2).transpose(1, 2))


class DINOv2(nn.Module):
    """The frozen backbone of DeDoDe-G."""

    def __init__(self, width: int = 1024, depth: int = 24, heads: int = 16) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINED_GRID**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # unused here; in the checkpoint
        self.patch_embed = _PatchEmbedding(width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 14 -> (B, width, H / 14, W / 14)."""
        rows, columns = image.shape[-2] // PATCH, image.shape[-1] // PATCH
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self._positions(rows, columns).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        patches: Tensor = self.norm(x)[:, 1:]
        return patches.transpose(1, 2).reshape(len(x), -1, rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The trained grid of position embeddings, resized as DINOv2 does: by a factor, with 0.1 patch to spare."""
        if rows == columns == _TRAINED_GRID:
            return self.pos_embed
        positions = self.pos_embed.float()
        grid = positions[:, 1:].reshape(1, _TRAINED_GRID, _TRAINED_GRID, -1).permute(0, 3, 1, 2)
        factor = ((rows + 0.1) / _TRAINED_GRID, (columns + 0.1) / _TRAINED_GRID)
        resized = F.interpolate(grid, scale_factor=factor, mode="bicubic")
        return torch.cat((positions[:, :1], resized.flatten(2).transpose(1, 2)), dim=1)
