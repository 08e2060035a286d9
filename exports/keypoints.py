"""From detector logits to keypoints, inside the graph: softmax, DeDoDe's coverage weighting, exact top-k."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from exports.networks import DeDoDe

TENSORRT_TOPK = 3840  # TensorRT's TopK takes no more
_DENSITY_TAPS = 51


def weight_by_coverage(probability: Tensor) -> Tensor:
    """Divides by the square root of the local density, so that keypoints spread (DeDoDe's `increase_coverage`).

    Args:
        probability: (B, H, W), float32: values are about 1e-6.
    """
    return probability * (smooth((probability + 1e-6) * 10000) + 1e-8) ** (-1 / 2)


def smooth(maps: Tensor) -> Tensor:
    """(B, H, W) under DeDoDe's kernel of 51 x 51 pixels; nothing lies outside."""
    taps = (-(torch.linspace(-2, 2, steps=_DENSITY_TAPS, device=maps.device) ** 2)).exp()
    margin = _DENSITY_TAPS // 2
    rows = F.conv2d(maps[:, None], taps.view(1, 1, 1, -1), padding=(0, margin))
    return F.conv2d(rows, taps.view(1, 1, -1, 1), padding=(margin, 0))[:, 0]


def exact_topk(scores: Tensor, k: int, limit: int = TENSORRT_TOPK) -> tuple[Tensor, Tensor]:
    """`scores.topk(k)` along the last axis, in rounds of at most `limit`, each hiding what the ones before found.

    Args:
        scores: (B, N) finite float32.
        k: how many; at most N.

    Returns:
        (B, k) values, descending, and (B, k) int64 places.
    """
    values: list[Tensor] = []
    places: list[Tensor] = []
    for start in range(0, k, limit):
        if places:
            scores = scores.scatter(1, places[-1], float("-inf"))
        value, place = scores.topk(min(limit, k - start), dim=1)
        values.append(value)
        places.append(place)
    return torch.cat(values, dim=1), torch.cat(places, dim=1)


class Logits(nn.Module):
    """Image in, dense logits out, float32 whatever the weights: the form in which the pipeline runs a detector."""

    def __init__(self, network: DeDoDe) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB, ImageNet-normalised -> (B, 1, H, W)."""
        return self.network(image.to(self.network.dtype)).float()


class Detect(nn.Module):
    """Image in, keypoints out: the form in which DeDoDe's detector is exported."""

    def __init__(self, network: DeDoDe, num_keypoints: int) -> None:
        super().__init__()
        self.network = network
        self.num_keypoints = num_keypoints

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The strongest pixels, as published: no non-maximum suppression, no sub-pixel refinement.

        Args:
            image: (B, 3, H, W) RGB, ImageNet-normalised; H * W >= num_keypoints.

        Returns:
            keypoints (B, K, 2) x, y in [-1, 1] (outer edges of the image), and scores (B, K), descending.
        """
        return strongest(self.network(image.to(self.network.dtype)).float(), self.num_keypoints)


def strongest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) float32 -> keypoints and scores, as `Detect` gives them."""
    logits = logits[:, 0]  # (B, H, W)
    height, width = logits.shape[1], logits.shape[2]
    probability = logits.flatten(1).softmax(dim=1).reshape(logits.shape)
    weighted = weight_by_coverage(probability).flatten(1)
    scores, places = exact_topk(weighted, count)
    rows = places // width  # not torch.div, which exports as float division and errs above 2^24
    columns = places - rows * width
    x = (columns.float() + 0.5) * 2 / width - 1
    y = (rows.float() + 0.5) * 2 / height - 1
    return torch.stack((x, y), dim=-1), scores


def pixel_overlap(found: NDArray[np.float32], expected: NDArray[np.float32], size: tuple[int, int]) -> float:
    """Mean share of `expected` that `found` holds, by pixel.

    Args:
        found, expected: (B, K, 2) x, y in [-1, 1].
        size: (height, width) of the image, pixels.
    """

    def pixels(points: NDArray[np.float32]) -> list[set[tuple[int, int]]]:
        places = np.floor((points + 1) / 2 * (size[1], size[0])).astype(int)
        return [set(map(tuple, one.tolist())) for one in places]

    shares = [len(a & b) / len(b) for a, b in zip(pixels(found), pixels(expected), strict=True)]
    return float(np.mean(shares))
