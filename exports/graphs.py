"""The steps between the networks as networks: pixels to input, logits to keypoints, descriptors to matches.

On a GPU everything from the uploaded photograph to the matches then stays on the device, on any engine that runs ONNX.
They have no weights: the files are made once (`scripts/export_graphs.py`) and come with the package. On the CPU
`sfm_match.features.keypoint_selection` and `sfm_match.matching.dual_softmax` do the same, faster there.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.graph_constants import (
    CAPACITIES,
    CONTRAST_RADIUS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MODES,
    NEVER,
    OUTSIDE,
    VALID,
    select_file,
)
from exports.keypoints import exact_topk, smooth

WINDOW = 2  # pixels each way of the soft-argmax
LEAST = 1e-30  # a sum of padding is 0; by `clamp_min`, because the exporter drops the addition of so little


class Normalise(nn.Module):
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, ImageNet mean and deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()  # buffers: a tensor made in `forward` would be a copy from the host, which no graph captures
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("scale", 1 / (torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float().permute(0, 3, 1, 2) - self.mean) * self.scale  # TensorRT moves no uint8


class Select(nn.Module):
    """`sfm_match.features.keypoint_selection.select_keypoints` for a batch, with a fixed number of rows."""

    def __init__(self, nms_radius: int, coverage: bool, subpixel: bool, capacity: int) -> None:
        super().__init__()
        self.nms_radius, self.coverage, self.subpixel, self.capacity = nms_radius, coverage, subpixel, capacity

    def forward(
        self, logits: Tensor, ground: Tensor, log_threshold: Tensor, least_contrast: Tensor
    ) -> tuple[Tensor, ...]:
        """The strongest local maxima.

        Args:
            logits: (B, 1, H, W) float32, padded images.
            ground: (B, H, W) uint8, the valid mask: `OUTSIDE` in the padding, `MASKED` where no keypoint is wanted (the
                border, a mask), `VALID` elsewhere. It keeps its old name: the exporter takes the sizes from the input
                that comes last in the alphabet, so that with another name the files would be other files.
            log_threshold: (1,) float32, logarithm of the least probability.
            least_contrast: (1,) float32, least logit over the lowest within `CONTRAST_RADIUS`.

        Returns:
            keypoints (B, K, 2) in [-1, 1] (outer edges of the padded image), points (B, K, 2) network pixels, scores
            (B, K), descending, counts (B,) int64: rows that hold a keypoint, finite (B,) int64: 1 where every logit is.
        """
        valid_mask = ground.to(torch.int32)
        # NaN fails both comparisons; TensorRT has no ReduceAll
        finite = ((logits < 1e30) & (logits > NEVER)).to(torch.int32).flatten(1).amin(dim=1).to(torch.int64)
        height, width = logits.shape[2], logits.shape[3]
        inside = torch.where(valid_mask > OUTSIDE, logits[:, 0], NEVER)  # (B, H, W)
        peak = inside.amax(dim=(1, 2), keepdim=True)
        log_total = peak + (inside - peak).exp().sum(dim=(1, 2), keepdim=True).log()
        allowed = (valid_mask == VALID) & (inside > log_total + log_threshold)
        if self.nms_radius:
            side = 2 * self.nms_radius + 1
            allowed = allowed & (F.max_pool2d(inside[:, None], side, 1, self.nms_radius)[:, 0] == inside)
        # the lowest of the image around each pixel; padding counts as high
        upside_down = torch.where(valid_mask > OUTSIDE, -inside, NEVER)[:, None]
        lowest = -F.max_pool2d(upside_down, 2 * CONTRAST_RADIUS + 1, 1, CONTRAST_RADIUS)[:, 0]
        allowed = allowed & (inside - lowest >= least_contrast)
        rank = inside
        if self.coverage:
            probability = torch.where(valid_mask > OUTSIDE, ((inside - log_total).exp() + 1e-6) * 10000, 0.0)
            rank = inside - 0.5 * smooth(probability).clamp_min(1e-8).log()  # see `LEAST`
        rank = torch.where(allowed, rank, NEVER).flatten(1)
        rank = F.pad(rank, (0, self.capacity), value=NEVER)  # images smaller than the capacity
        strength, places = exact_topk(rank, self.capacity)  # (B, K)
        found = strength > NEVER / 2
        places = torch.where(found, places, 0)
        rows = places // width
        columns = places - rows * width
        points = torch.stack((columns, rows), dim=-1).float() + 0.5
        if self.subpixel:
            refined = points + _soft_argmax(inside, rows, columns)
            # one that would leave the valid area stays at its pixel
            at = refined.floor().to(torch.int64)
            flat = at[..., 1].clamp(0, height - 1) * width + at[..., 0].clamp(0, width - 1)
            stays = valid_mask.flatten(1).gather(1, flat) == VALID
            points = torch.where(stays[..., None], refined, points)
        scores = torch.where(found, (strength - log_total[:, 0]).exp(), 0.0)
        x, y = points[..., 0] * (2.0 / width) - 1, points[..., 1] * (2.0 / height) - 1
        return torch.stack((x, y), dim=-1), points, scores, found.to(torch.int64).sum(dim=1), finite


def _soft_argmax(inside: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, K, 2) expected offset x, y from each maximum under the softmax of its 5 x 5 window."""
    steps = torch.arange(-WINDOW, WINDOW + 1, device=inside.device)
    padded = F.pad(inside, (WINDOW,) * 4, value=NEVER)  # what lies beyond the edge has no weight
    stride = padded.shape[2]
    centre = (rows + WINDOW) * stride + columns + WINDOW
    offsets = (steps[:, None] * stride + steps[None]).flatten()  # (25,)
    index = centre[..., None] + offsets  # (B, K, 25)
    window = padded.flatten(1).gather(1, index.flatten(1)).reshape(index.shape)
    weight = (window - window[..., 12:13]).exp()
    total = weight.sum(dim=-1)
    along = steps.float()
    dx = (weight * along.repeat(5)).sum(dim=-1) / total
    dy = (weight * along.repeat_interleave(5)).sum(dim=-1) / total
    return torch.stack((dx, dy), dim=-1)


class StoredDescriptors(nn.Module):
    """Descriptors as they are stored, so that half as many bytes leave the device and nothing is checked behind it."""

    def forward(self, descriptors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            descriptors: (B, K, D) float32, unit length.
            counts: (B,) int64: rows that hold a keypoint.

        Returns:
            (B, K, D) float16, and (B,) int64: 1 where every value of the rows that count is finite.
        """
        inside = (descriptors < 2).to(torch.int32).amin(dim=2)  # (B, K): NaN fails the comparison
        inside = inside * (descriptors > -2).to(torch.int32).amin(dim=2)
        padding = torch.arange(descriptors.shape[1], device=counts.device)[None] >= counts[:, None]
        finite = torch.where(padding, 1, inside).amin(dim=1)
        return descriptors.half(), finite.to(torch.int64)


class Product(nn.Module):
    """A matrix product: ONNX Runtime's is up to twice as fast on a CPU as that of numpy's OpenBLAS."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, D) and (D, M) float32 -> (N, M)."""
        return a @ b


class MatchBlock(nn.Module):
    """`sfm_match.matching.dual_softmax.match_descriptors` for many pairs of a block of images that stays on the device.

    Images have different numbers of keypoints. Two more columns take the padding out inside the matrix product: with
    `[d, 0, 1]` for a keypoint, `[0, PADDING, 1]` for a row of padding, and the two columns swapped for the second
    image, the product is the cosine, and less than PADDING + 1 where one of the two is padding. With 1 less in the last
    column of the second image it is 1 less, exactly.

    What takes the time are passes over (P, N, N), nine of them: a product, a multiplication, an exponential, two sums,
    and for each of the two maxima a multiplication and a search.
    """

    def forward(self, descriptors: Tensor, pairs: Tensor, inverse_temperature: Tensor) -> tuple[Tensor, Tensor]:
        """Mutual maxima of the dual softmax.

        Args:
            descriptors: (I, N, D + 2) float16.
            pairs: (P, 2) int64, places in the block.
            inverse_temperature: (1,) float32.

        Returns:
            (P, N) int32: the keypoint of the second image, (P, N) float32: its probability, 0 where the two are not
            each other's maximum.
        """
        first, second = descriptors[pairs[:, 0]], descriptors[pairs[:, 1]]
        last = second.shape[2] - 1
        second = torch.cat((second[..., : last - 1], second[..., last:], second[..., last - 1 : last] - 1), dim=2)
        e = (_product(first, second.transpose(1, 2)) * inverse_temperature).exp()  # (P, N, N)
        rows = e.sum(dim=2).clamp_min(LEAST)  # (P, N)
        columns = e.sum(dim=1).clamp_min(LEAST)
        # P = E^2 / (r c^T): along a row r is constant, along a column c, and the maximum of a square is its root's
        place = (e * columns.rsqrt()[:, None]).argmax(dim=2)
        back = (e * rows.rsqrt()[..., None]).argmax(dim=1)
        # by index: two reductions over equal values may differ in the last bit
        mutual = back.gather(1, place) == torch.arange(e.shape[1], device=e.device)
        strength = e.gather(2, place[..., None])[..., 0]
        best = (strength / rows) * (strength / columns.gather(1, place))
        return place.to(torch.int32), torch.where(mutual, best, 0.0)


class JoinGroups(nn.Module):
    """Two groups of images as one block, without leaving the device."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(I, N, D) and (J, N, D) -> (I + J, N, D)."""
        return torch.cat((first, second))


def _product(first: Tensor, second: Tensor) -> Tensor:
    """float32 of float16. On engines with TF32 the product of halves is exact in it: both have 10 bits of fraction."""
    if first.is_cuda and torch.version.hip is None:
        return torch.bmm(first, second, out_dtype=torch.float32)
    return first.float() @ second.float()


def export_graphs(folder: Path) -> None:
    """Writes every file."""
    from exports.onnx_export import export_module

    size = {1: "height", 2: "width"}
    pixels = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    export_module(
        Normalise(), {"pixels": pixels}, {"pixels": {0: "batch", **size}}, ["image"], folder / "normalise.onnx"
    )
    inputs = {"logits": torch.randn(2, 1, 64, 96), "ground": torch.full((2, 64, 96), VALID, dtype=torch.uint8)}
    inputs |= {"log_threshold": torch.tensor([NEVER]), "least_contrast": torch.tensor([0.0])}
    dynamic = {"logits": {0: "batch", 2: "height", 3: "width"}, "ground": {0: "batch", **size}}
    dynamic |= {"log_threshold": {}, "least_contrast": {}}
    outputs = ["keypoints", "points", "scores", "counts", "finite"]
    for how, mode in MODES.items():
        for capacity in CAPACITIES:
            export_module(Select(*how, capacity), inputs, dynamic, outputs, folder / select_file(mode, capacity))
    factors = {"a": torch.zeros(3, 5), "b": torch.zeros(5, 7)}
    lengths = {"a": {0: "rows", 1: "depth"}, "b": {0: "depth", 1: "columns"}}
    export_module(Product(), factors, lengths, ["product"], folder / "product.onnx")
    block = {
        "descriptors": torch.zeros(3, 7, 10, dtype=torch.float16),
        "pairs": torch.tensor([[0, 1], [1, 2]]),
        "inverse_temperature": torch.tensor([20.0]),
    }
    free = {
        "descriptors": {0: "images", 1: "keypoints", 2: "columns"},
        "pairs": {0: "pairs"},
        "inverse_temperature": {},
    }
    described = {"descriptors": torch.zeros(2, 7, 10), "counts": torch.tensor([3, 7])}
    rows = {"descriptors": {0: "batch", 1: "keypoints", 2: "columns"}, "counts": {0: "batch"}}
    export_module(StoredDescriptors(), described, rows, ["stored", "described"], folder / "stored.onnx")
    groups = {name: torch.zeros(3, 7, 10, dtype=torch.float16) for name in ("first", "second")}
    sides = {name: {0: f"{name}_images", 1: "keypoints", 2: "columns"} for name in groups}
    export_module(JoinGroups(), groups, sides, ["descriptors"], folder / "join.onnx")
    export_module(MatchBlock(), block, free, ["places", "scores"], folder / "match.onnx")
