"""A detector that learns from another: what that one says of clean views, on average over mirrors and shifts.

A strided network says something else of a picture that is mirrored or moved by a pixel. The mean over such pictures is
more exact than any of its parts (DeTone et al., "SuperPoint", CVPRW 2018, have it over homographies, to make labels);
the student learns to say it at once, and of views that are blurred, compressed and badly lit.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano.losses import MARGIN, NEVER, Overlap, local_maxima

_MIRRORS = ((), (3,), (2,), (2, 3))
_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))  # pixels: the four places of a pixel in a cell of stride 2
_SIGMA = 0.5  # pixels, of a blur of the mean
_WINDOW = 3  # pixels each way of a maximum, in which its shape is compared


@dataclass(frozen=True)
class Teacher:
    """A detector that is not trained any more."""

    network: nn.Module
    temperature: float = 0.5  # its logits are multiplied by this: the soft-argmax is most exact then
    across: float = 0.3  # weight of what it says of the other view, where that shows the same

    @torch.no_grad()
    def target(self, images: Tensor, a_to_b: Overlap, b_to_a: Overlap, rng: np.random.Generator) -> Tensor:
        """(2B, 3, S, S) clean views, normalised -> (2B, 1, S, S) logits that a student is to give."""
        total = torch.zeros_like(images[:, :1])
        for shift in _SHIFTS:
            mirror = _MIRRORS[int(rng.integers(len(_MIRRORS)))]
            said = self.network(torch.roll(images, shift, (2, 3)).flip(mirror)).flip(mirror)
            total += torch.roll(said, (-shift[0], -shift[1]), (2, 3))
        mean = self.temperature * _blurred(total / len(_SHIFTS))
        b, size = len(mean) // 2, mean.shape[-1]
        target = mean.clone()
        for own, other, where in ((target[:b], mean[b:], a_to_b), (target[b:], mean[:b], b_to_a)):
            warped = F.grid_sample(other, where.grid, mode="bilinear", align_corners=False)
            own += self.across * where.mask.view(b, 1, size, size) * (warped - own)
        return target


def _blurred(maps: Tensor) -> Tensor:
    kernel = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    return F.conv2d(F.pad(maps, (2, 2, 2, 2), mode="replicate"), (kernel[:, None] * kernel)[None, None])


def divergence(logits: Tensor, target: Tensor, valid: Tensor, count: int = 256) -> tuple[Tensor, Tensor]:
    """Kullback-Leibler divergences of the student's softmax from the teacher's.

    Args:
        logits, target: (N, 1, S, S).
        valid: (N, S, S) bool, the pixels that count.
        count: of the target's maxima.

    Returns:
        Over the whole view; and over the 7 x 7 windows of the target's maxima, each a distribution of its own, which
        are what the soft-argmax looks at. Means.
    """
    n, size = len(logits), logits.shape[-1]
    inside = torch.zeros_like(valid)
    inside[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = valid[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    outside = ~inside.view(n, -1)
    p = target.flatten(1).masked_fill(outside, NEVER).softmax(-1)
    log_q = logits.flatten(1).masked_fill(outside, NEVER).log_softmax(-1)
    whole = (p * (p.clamp(min=1e-12).log() - log_q.clamp(min=-60))).sum(-1).mean()
    strength, index = local_maxima(target[:, 0].masked_fill(~inside, NEVER), 5).topk(count, -1)
    steps = torch.arange(-_WINDOW, _WINDOW + 1)
    places = (index[..., None] + (steps[:, None] * size + steps).flatten()).clamp(0, size * size - 1)

    def windows(maps: Tensor) -> Tensor:
        return maps.flatten(1).gather(1, places.flatten(1)).view(places.shape).log_softmax(-1)

    there, log_p = strength > NEVER, windows(target)
    local = (log_p.exp() * (log_p - windows(logits))).sum(-1)
    return whole, (local * there).sum() / there.sum().clamp(min=1)
