"""The DeDoDe losses: a detector that need not describe, a descriptor that need not detect.

Pixel centres are integers here, as in `views`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from exports.sampling import sample
from nano.views import Views

NEVER = -1e30
MARGIN = 4  # pixels at the edge of a view that take no part
PIXELS_PER_KEYPOINT = 128  # the target has overlap / 128 keypoints
WINDOW = 2  # pixels each way of the soft-argmax, as in inference
MIN_OVERLAP = 0.1  # of the view; below, the pair teaches the detector nothing


@dataclass(frozen=True)
class Overlap:
    """Where every pixel of A lands in B."""

    grid: Tensor  # (B, S, S, 2) positions in B in [-1, 1]
    mask: Tensor  # (B, S*S) bool: seen in both views
    b_from_a: Tensor  # (B, 3, 3)


def _apply(homography: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, 3), (B, N, 2) -> points (B, N, 2) and their depths (B, N)."""
    projected = F.pad(points, (0, 1), value=1.0) @ homography.transpose(1, 2)
    w = projected[..., 2]
    return projected[..., :2] / torch.where(w.abs() > 1e-6, w, 1e-6)[..., None], w


def overlap(views: Views) -> Overlap:
    b, size = len(views.b_from_a), views.images.shape[-1]
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = torch.stack((xs, ys), -1).float().reshape(1, -1, 2).expand(b, -1, -1)
    landed, depth = _apply(views.b_from_a, pixels)
    grid = ((landed + 0.5) / size * 2 - 1).view(b, size, size, 2)
    seen = F.grid_sample(views.valid[b:, None].float(), grid, mode="nearest", align_corners=False)[:, 0] > 0.5
    mask = (grid.abs() < 0.98).all(-1) & (depth.view(b, size, size) > 0) & views.valid[:b] & seen
    inner = torch.zeros_like(mask)
    inner[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    return Overlap(grid, (mask & inner).view(b, -1), views.b_from_a)


def local_maxima(score: Tensor, window: int) -> Tensor:
    """(B, S, S) -> (B, S*S), NEVER where a pixel is not the maximum of its window."""
    pooled = F.max_pool2d(score[:, None], window, 1, window // 2)[:, 0]
    return score.masked_fill(score != pooled, NEVER).flatten(1)


def detector_loss(logits: Tensor, views: Views, seen: Overlap, prior: float) -> Tensor:
    """Cross-entropy of both views' distributions, in A's frame, with the joint's own strongest maxima.

    Args:
        logits: (2B, 1, S, S) of all A, then all B.
        prior: weight of the corner strength in choosing the target.
    """
    b = len(logits) // 2
    size = logits.shape[-1]
    warped = F.grid_sample(logits[b:], seen.grid, mode="bilinear", align_corners=False)
    log_a = logits[:b].flatten(1).masked_fill(~seen.mask, NEVER).log_softmax(-1)
    log_b = warped.flatten(1).masked_fill(~seen.mask, NEVER).log_softmax(-1)
    area = seen.mask.sum(1)
    with torch.no_grad():
        corners_b = F.grid_sample(views.corners[b:, None], seen.grid, align_corners=False).flatten(1)
        joint = log_a + log_b + prior * (views.corners[:b].flatten(1) + corners_b)
        peaks = local_maxima(joint.masked_fill(~seen.mask, NEVER).view(b, size, size), 5)
        count = (area // PIXELS_PER_KEYPOINT).clamp(min=16)
        order = peaks.topk(int(count.max()), -1).indices
        rank = torch.arange(order.shape[1])[None]
        target = torch.zeros_like(peaks).scatter_(1, order, (rank < count[:, None]) / count[:, None].float())
    entropy = -(target * (log_a.clamp(min=-60) + log_b.clamp(min=-60))).sum(-1)
    return (entropy * (area > MIN_OVERLAP * size * size)).mean()


def soft_argmax(logits: Tensor, index: Tensor) -> Tensor:
    """Where inference puts the keypoints of these maxima: the expected place under the softmax of their 5x5 windows.

    Args:
        logits: (B, S, S).
        index: (B, N) places in the flat map, at least `WINDOW` pixels inside.

    Returns:
        (B, N, 2) x, y, with the gradient of the logits.
    """
    size = logits.shape[-1]
    steps = torch.arange(-WINDOW, WINDOW + 1)
    offsets = (steps[:, None] * size + steps[None]).flatten()
    places = (index[..., None] + offsets).clamp(0, size * size - 1)
    window = logits.flatten(1).gather(1, places.flatten(1)).view(places.shape)
    weight = window.softmax(-1)
    along = steps.float()
    dx = weight @ along.repeat(len(steps))
    dy = weight @ along.repeat_interleave(len(steps))
    return torch.stack((index % size + dx, index // size + dy), -1)


def disagreement(logits: Tensor, seen: Overlap, count: int = 256) -> tuple[Tensor, Tensor]:
    """How far apart the refined keypoints of both views are, after the homography.

    Returns:
        (B, count) squared distances, pixels of B; and (B, count) bool: which keypoints both views found. Only maxima
        that agree to within 2.5 pixels are: those which do not are another loss's business.
    """
    b, size = len(logits) // 2, logits.shape[-1]
    a_map, b_map = logits[:b, 0], logits[b:, 0]
    with torch.no_grad():
        peaks_a = local_maxima(a_map, 2 * WINDOW + 1).masked_fill(~seen.mask, NEVER)
        peaks_b = local_maxima(b_map, 2 * WINDOW + 1)
        strength, index_a = peaks_a.topk(count, -1)
        landed, _ = _apply(seen.b_from_a, torch.stack((index_a % size, index_a // size), -1).float())
        nearest = landed.round().long().clamp(MARGIN, size - 1 - MARGIN)
        steps = torch.arange(-WINDOW, WINDOW + 1)
        around = (steps[:, None] * size + steps[None]).flatten()
        candidates = (nearest[..., 1] * size + nearest[..., 0])[..., None] + around
        best = peaks_b.gather(1, candidates.flatten(1)).view(candidates.shape).max(-1)
        index_b = candidates.gather(-1, best.indices[..., None])[..., 0]
        x, y = index_b % size, index_b // size
        inside = (x >= MARGIN) & (x < size - MARGIN) & (y >= MARGIN) & (y < size - MARGIN)
        both = (strength > NEVER) & (best.values > NEVER) & inside
    moved, _ = _apply(seen.b_from_a, soft_argmax(a_map, index_a))
    return (moved - soft_argmax(b_map, index_b)).square().sum(-1), both


def mean_distance(squared: Tensor, both: Tensor) -> Tensor:
    """Pixels, of what `disagreement` found."""
    return ((squared + 1e-4).sqrt().clamp(max=4) * both).sum() / both.sum().clamp(min=1)


def robust_distance(squared: Tensor, both: Tensor) -> Tensor:
    """The Cauchy loss of half a pixel, of what `disagreement` found: near misses pull most, strangers little."""
    return (torch.log1p(4 * squared) * both).sum() / both.sum().clamp(min=1)


def descriptor_loss(
    dense: Tensor, logits: Tensor, seen: Overlap, generator: torch.Generator, maxima: int = 320, randoms: int = 128
) -> tuple[Tensor, Tensor]:
    """Dual-softmax cross-entropy at the detector's maxima and at random points, jittered in both views.

    Returns:
        The loss, and the share of points whose nearest descriptor is the right one.
    """
    b, size = len(logits) // 2, logits.shape[-1]
    with torch.no_grad():
        peaks = local_maxima(logits[:b, 0], 3).masked_fill(~seen.mask, NEVER)
        chance = torch.rand(peaks.shape, generator=generator).masked_fill(~seen.mask, -1)
        index = torch.cat((peaks.topk(maxima, -1).indices, chance.topk(randoms, -1).indices), 1)
        usable = seen.mask.gather(1, index)
        points = torch.stack((index % size, index // size), -1).float()
        points_a = points + torch.rand(points.shape, generator=generator) - 0.5
        points_b = _apply(seen.b_from_a, points_a)[0] + torch.rand(points.shape, generator=generator) - 0.5
        other = ~torch.eye(index.shape[1], dtype=torch.bool)
        near = (torch.cdist(points_b, points_b) < 3) & other

    def describe(side: Tensor, at: Tensor) -> Tensor:
        return F.normalize(sample(side, (at + 0.5) / size * 2 - 1), dim=-1)

    similarity = 20 * describe(dense[:b], points_a) @ describe(dense[b:], points_b).transpose(1, 2)
    similarity = similarity.masked_fill(near | ~usable[:, None] | ~usable[..., None], -1e4)
    likelihood = similarity.log_softmax(1).diagonal(dim1=1, dim2=2) + similarity.log_softmax(2).diagonal(dim1=1, dim2=2)
    total = usable.sum().clamp(min=1)
    right = (similarity.argmax(2) == torch.arange(index.shape[1])) & usable
    return -(likelihood * usable).sum() / total, right.sum() / total


@torch.no_grad()
def repeatability(logits: Tensor, seen: Overlap) -> tuple[float, float]:
    """Share of A's 256 strongest maxima in the overlap with one of B's 512 strongest within 1 px and within 3 px."""
    b, size = len(logits) // 2, logits.shape[-1]
    index_a = local_maxima(logits[:b, 0], 3).masked_fill(~seen.mask, NEVER).topk(256, -1).indices
    index_b = local_maxima(logits[b:, 0], 3).topk(512, -1).indices
    usable = seen.mask.gather(1, index_a)
    landed, _ = _apply(seen.b_from_a, torch.stack((index_a % size, index_a // size), -1).float())
    distance = torch.cdist(landed, torch.stack((index_b % size, index_b // size), -1).float()).amin(-1)
    total = max(1, int(usable.sum()))
    within_1, within_3 = (float(((distance < limit) & usable).sum()) / total for limit in (1, 3))
    return within_1, within_3
