"""Maps at keypoints, by bilinear interpolation."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(dense: Tensor, keypoints: Tensor) -> Tensor:
    """A map at keypoints, by bilinear interpolation.

    Args:
        dense: (B, C, h, w) over the whole image, at any stride.
        keypoints: (B, N, 2) x, y in [-1, 1], where -1 and 1 are the outer edges of the image (align_corners=False).

    Returns:
        (B, N, C) float32.
    """
    at = keypoints[:, None].float()
    sampled = F.grid_sample(dense.float(), at, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, :, 0].transpose(1, 2)


def sample_rows(dense: Tensor, keypoints: Tensor, *, doubled: bool = False) -> Tensor:
    """`sample`, by whole rows of channels: on a CPU many times as fast for a map that is small beside the image.

    With `doubled` it is the map of twice the size, by bilinear interpolation, that is sampled, and never made.
    """
    batch, channels, height, width = dense.shape
    rows = dense.permute(0, 2, 3, 1).reshape(-1, channels)
    image = torch.arange(batch, device=dense.device)[:, None] * height
    x, y = keypoints.float().unbind(-1)
    columns = _taps(x, width, doubled)

    def line(row: Tensor) -> Tensor:
        start = (image + row) * width
        first, *others = (F.embedding(start + column, rows).float() * weight for column, weight in columns)
        return sum(others, first)

    first, *others = (line(row) * weight for row, weight in _taps(y, height, doubled))
    return sum(others, first)


def _taps(at: Tensor, cells: int, doubled: bool) -> list[tuple[Tensor, Tensor]]:
    """What bilinear interpolation reads along one axis: cells (B, N) int64 and their weights (B, N, 1)."""
    fine = 2 * cells if doubled else cells
    place = (((at + 1) * fine - 1) / 2).clamp(0, fine - 1)
    near = place.floor()
    far = place - near
    taps = [(near, 1 - far), (near + 1, far)]
    if doubled:  # each of the two lies between two cells itself: three in all
        one, other = (((cell - 0.5) / 2).clamp(0, cells - 1) for cell, _ in taps)
        three = [one.floor() + step for step in range(3)]
        taps = [(cell, _overlap(cell, one) * (1 - far) + _overlap(cell, other) * far) for cell in three]
    # clamped as whole numbers: a keypoint that is no number has no descriptor, and not an index out of bounds
    return [(cell.long().clamp(0, cells - 1), weight[..., None]) for cell, weight in taps]


def _overlap(cell: Tensor, place: Tensor) -> Tensor:
    """The weight of a cell for a place that is interpolated linearly."""
    return (1 - (cell - place).abs()).clamp(min=0)
