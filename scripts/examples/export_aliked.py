"""Another extractor: writes ALIKED as an ONNX file with its `model.toml`, for `sfm-match run --model FOLDER`.

    python scripts/examples/export_aliked.py aliked-n16rot.pth aliked
    sfm-match run --images photos --model aliked

ALIKED (Zhao et al., IEEE TIM 2023; BSD-3) is one network that detects and describes. The weights are those that its
authors published; the network is kornia's, with three parts in forms that every ONNX engine takes: the deformable
convolutions sample with `grid_sample`, the number of keypoints is fixed, and all images of a batch go through at once.
`kornia` must be installed, and sfm-match with its extra `export`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kornia.feature import ALIKED
from torch import Tensor, nn

from exports.keypoints import exact_topk
from exports.onnx_export import export_module

NAME, DIVISOR = "aliked-n16rot", 32  # pixels: the network's coarsest stride
RADIUS, TEMPERATURE = 2, 0.1  # of the soft-argmax around a keypoint, ALIKED's own
MODEL = """\
# {name}: kornia's network, the published weights
file = "{name}.onnx"
input = "image"
divisor = {divisor}
keypoints = "keypoints"
scores = "scores"
descriptors = "descriptors"
coordinates = "pixels"
first_pixel = 0.0
dimension = {dimension}
match_threshold = 0.1
inverse_temperature = 20.0
"""


class Deformable(nn.Module):
    """kornia's deformable convolution: nine samples of the map for each output pixel, then one product."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.offsets, self.weight = module.offset_conv, module.regular_conv.weight  # (O, C, 3, 3)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)."""
        batch, channels, height, width = maps.shape
        steps = torch.arange(3, device=maps.device) - 1.0
        y = torch.arange(height, device=maps.device)[:, None] + steps.repeat_interleave(3)[:, None, None]  # (9, H, 1)
        x = torch.arange(width, device=maps.device) + steps.repeat(3)[:, None, None]  # (9, 1, W)
        offsets = _within(self.offsets(maps), height, width).reshape(batch, 9, 2, height, width)  # dy, dx
        at = torch.stack((x + offsets[:, :, 1], y + offsets[:, :, 0]), dim=-1)  # (B, 9, H, W, 2)
        seen = _sampled(maps, at.reshape(batch, 9, height * width, 2)).reshape(batch, channels * 9, height, width)
        return F.conv2d(seen, self.weight.reshape(-1, channels * 9, 1, 1))


class Extract(nn.Module):
    """kornia's ALIKED with a fixed number of keypoints."""

    def __init__(self, network: ALIKED, num_keypoints: int) -> None:
        super().__init__()
        self.network: Any = network.eval()
        self.num_keypoints = num_keypoints
        for block in (self.network.block3, self.network.block4):
            block.conv1, block.conv2 = Deformable(block.conv1), Deformable(block.conv2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            image: (B, 3, H, W) RGB from 0 to 1; H and W are multiples of `DIVISOR`.

        Returns:
            keypoints (B, K, 2) x, y in pixels, the centre of the top-left one at (0, 0), scores (B, K), 0 in rows
            without a keypoint, and descriptors (B, K, 128) of unit length.
        """
        features, scores = self._maps(image)
        places, found = self._strongest(scores)
        points = _soft_argmax(scores, places)
        at_points = _sampled(scores, points[:, None])[:, 0, 0]  # (B, K)
        return points, torch.where(found, at_points, 0.0), self._described(features, points)

    def _maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 128, H, W) of unit length, and scores (B, 1, H, W)."""
        net = self.network
        first = net.block1(image)
        second = net.block2(net.pool2(first))
        third = net.block3(net.pool4(second))
        fourth = net.block4(net.pool4(third))
        levels = (first, second, third, fourth)
        heads = (net.conv1, net.conv2, net.conv3, net.conv4)
        enlarge = (nn.Identity(), net.upsample2, net.upsample8, net.upsample32)
        joined = torch.cat(
            [up(net.gate(head(level))) for level, head, up in zip(levels, heads, enlarge, strict=True)], dim=1
        )
        return F.normalize(joined, dim=1), torch.sigmoid(net.score_head(joined))

    def _strongest(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) places in the flat map of the strongest strict local maxima, and whether there is one."""
        maps = F.pad(scores, (RADIUS,) * 4)
        above, below = (F.max_pool2d(part, (2, 5), 1) for part in (maps[:, :, :-3], maps[:, :, 3:]))
        row = maps[:, :, RADIUS:-RADIUS]
        left, right = (F.max_pool2d(part, (1, 2), 1) for part in (row[..., :-3], row[..., 3:]))
        around = torch.maximum(torch.maximum(above, below), torch.maximum(left, right))
        inner = scores[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]  # the window fits into the image
        best = inner > around[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]
        allowed = F.pad(torch.where(best, inner, 0.0), (RADIUS,) * 4).flatten(1)
        strength, places = exact_topk(F.pad(allowed, (0, self.num_keypoints)), self.num_keypoints)
        found = strength > 0
        # rows without a keypoint are described as one, and nobody reads them
        return torch.where(found, places, RADIUS * (scores.shape[3] + 1)), found

    def _described(self, features: Tensor, points: Tensor) -> Tensor:
        """(B, K, 128): sums over samples whose offsets depend on the 3 x 3 pixels around a keypoint."""
        head, (batch, count, _) = self.network.desc_head, points.shape
        height, width = features.shape[2], features.shape[3]
        ends = torch.stack((_number(width, points), _number(height, points))) - 4
        corner = torch.minimum((points.floor() - 1).clamp_min(0), ends).to(torch.int64)
        steps = torch.arange(3, device=points.device)
        window = (steps[:, None] * width + steps).flatten()  # (9,)
        index = (corner[..., 1] * width + corner[..., 0])[..., None] + window  # (B, K, 9)
        index = index.flatten(1)[:, None].expand(-1, features.shape[1], -1)
        patches = features.flatten(2).gather(2, index).unflatten(2, (count, 9))  # (B, C, K, 9)
        first, gate, second = head.offset_conv
        offsets = gate(F.conv2d(patches, first.weight.flatten(2)[:, :, None], first.bias))  # (B, 2 M, K, 1)
        offsets = _within(second(offsets), height, width).reshape(batch, 2, head.n_pos, count)
        at = points[:, :, None] + offsets.permute(0, 3, 2, 1)  # (B, K, M, 2)
        seen = F.selu(head.sf_conv(_sampled(features, at)))  # (B, C, K, M)
        return F.normalize(torch.einsum("bckm,mcd->bkd", seen, head.agg_weights), dim=-1)


def _number(size: int, like: Tensor) -> Tensor:
    """A size, which may be free, as a scalar tensor."""
    return torch.scalar_tensor(size, dtype=like.dtype, device=like.device)


def _within(offsets: Tensor, height: int, width: int) -> Tensor:
    """Offsets of at most a quarter of the longer side, as ALIKED limits them."""
    most = torch.maximum(_number(height, offsets), _number(width, offsets)) / 4
    return torch.maximum(torch.minimum(offsets, most), -most)


def _sampled(maps: Tensor, at: Tensor) -> Tensor:
    """(B, C, H, W) at (B, N, M, 2) x, y in pixels from 0 -> (B, C, N, M); nothing lies outside."""
    ends = torch.stack((_number(maps.shape[3], at), _number(maps.shape[2], at))) - 1
    return F.grid_sample(maps, at * 2 / ends - 1, align_corners=True)


def _soft_argmax(scores: Tensor, places: Tensor) -> Tensor:
    """(B, K, 2) x, y in pixels from 0: the expected place under the softmax of the 5 x 5 pixels around each."""
    width = scores.shape[3]
    steps = torch.arange(-RADIUS, RADIUS + 1, device=places.device)
    index = places[..., None] + (steps[:, None] * width + steps).flatten()  # (B, K, 25)
    window = scores.flatten(1).gather(1, index.flatten(1)).unflatten(1, (places.shape[1], -1))
    weight = ((window - window.amax(dim=-1, keepdim=True)) / TEMPERATURE).exp()
    offsets = torch.stack((steps.repeat(5), steps.repeat_interleave(5)), dim=-1).to(scores.dtype)  # (25, 2)
    y = places // width
    pixel = torch.stack((places - y * width, y), dim=-1).to(scores.dtype)
    return pixel + weight @ offsets / weight.sum(dim=-1, keepdim=True)


def aliked(weights: Path) -> ALIKED:
    """kornia's network with published weights."""
    network = ALIKED(NAME)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    lost = set(network.load_state_dict(state, strict=False).missing_keys) - {"dkd.hw_grid"}  # a constant
    if lost:
        raise SystemExit(f"{weights}: not the weights of {NAME}; it lacks {', '.join(sorted(lost))}")
    return network


def main(weights: str, out: str, num_keypoints: int = 4096) -> None:
    """Writes the folder."""
    folder = Path(out)
    module = Extract(aliked(Path(weights)), num_keypoints)
    height, width = (DIVISOR * torch.export.Dim(f"{side}_in_{DIVISOR}", min=2, max=256) for side in ("height", "width"))
    free = {"image": {0: "batch", 2: height, 3: width}}
    outputs = ["keypoints", "scores", "descriptors"]
    export_module(module, {"image": torch.rand(2, 3, 128, 192)}, free, outputs, folder / f"{NAME}.onnx")
    dimension = module.network.desc_head.agg_weights.shape[2]
    text = MODEL.format(name=NAME, divisor=DIVISOR, dimension=dimension)
    (folder / "model.toml").write_text(text, encoding="utf-8")
    print(f"{folder}: {NAME}.onnx, model.toml")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
