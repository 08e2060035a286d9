"""LightGlue: matches of two images from all their keypoints and descriptors at once.

Lindenberger et al., "LightGlue: Local Feature Matching at Light Speed", ICCV 2023. Names follow kornia's checkpoints.
All layers run for all keypoints: the published network may stop early and drop keypoints, to be faster, which has no
form in ONNX.
"""

import re
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.weights import WeightsError, read_state

WIDTH, HEADS, LAYERS = 256, 4, 9  # of every published LightGlue that takes keypoints and descriptors alone
_HIDDEN = -1e9  # added to the logits of padding; finite, so that an image without keypoints gives no NaN
# of every layer that could be the last
_ADAPTIVE = re.compile(r"token_confidence\.|confidence_thresholds$|log_assignment\.")
_EARLIER_NAME = re.compile(r"^(self_attn|cross_attn)\.(\d+)\.")  # self_attn.3.x -> transformers.3.self_attn.x


class _PositionalEncoding(nn.Module):
    """Cosines and sines of learned projections of positions, each twice: the rotations of `_rotated`."""

    def __init__(self) -> None:
        super().__init__()
        self.Wr = nn.Linear(2, WIDTH // HEADS // 2, bias=False)

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """(P, N, 2) -> (P, 1, N, WIDTH / HEADS) each."""
        angles = self.Wr(keypoints)[:, None].repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


def _rotated(x: Tensor, rotations: tuple[Tensor, Tensor]) -> Tensor:
    """(P, H, N, D): each two neighbouring values turned by an angle of their keypoint."""
    cosines, sines = rotations
    first, second = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return x * cosines + torch.stack((-second, first), dim=-1).flatten(-2) * sines


def _heads(x: Tensor) -> Tensor:
    """(P, N, WIDTH) -> (P, H, N, WIDTH / HEADS)."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _feed_forward() -> nn.Sequential:
    both = 2 * WIDTH
    return nn.Sequential(nn.Linear(both, both), nn.LayerNorm(both), nn.GELU(), nn.Linear(both, WIDTH))


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Wqkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        self.ffn = _feed_forward()

    def forward(self, x: Tensor, rotations: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
        q, k, v = self.Wqkv(x).unflatten(-1, (HEADS, -1, 3)).transpose(1, 2).unbind(dim=-1)  # (P, H, N, D) each
        seen = F.scaled_dot_product_attention(_rotated(q, rotations), _rotated(k, rotations), v, hidden)
        message = self.out_proj(seen.transpose(1, 2).flatten(-2))
        return cast(Tensor, x + self.ffn(torch.cat((x, message), dim=-1)))


class _CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_qk = nn.Linear(WIDTH, WIDTH)
        self.to_v = nn.Linear(WIDTH, WIDTH)
        self.to_out = nn.Linear(WIDTH, WIDTH)
        self.ffn = _feed_forward()

    def forward(self, x0: Tensor, x1: Tensor, hidden0: Tensor, hidden1: Tensor) -> tuple[Tensor, Tensor]:
        (k0, v0), (k1, v1) = ((_heads(self.to_qk(x)), _heads(self.to_v(x))) for x in (x0, x1))
        return self._updated(x0, k0, k1, v1, hidden1), self._updated(x1, k1, k0, v0, hidden0)

    def _updated(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
        seen = F.scaled_dot_product_attention(query, key, value, hidden)
        message = self.to_out(seen.transpose(1, 2).flatten(-2))
        return cast(Tensor, x + self.ffn(torch.cat((x, message), dim=-1)))


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = _SelfAttention()
        self.cross_attn = _CrossAttention()

    def forward(
        self, x: tuple[Tensor, Tensor], rotations: tuple[tuple[Tensor, Tensor], ...], hidden: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """All arguments of both images."""
        first, second = (self.self_attn(*one) for one in zip(x, rotations, hidden, strict=True))
        return cast(tuple[Tensor, Tensor], self.cross_attn(first, second, *hidden))


class _Assignment(nn.Module):
    """Whether a keypoint has a match, and how alike two keypoints are."""

    def __init__(self) -> None:
        super().__init__()
        self.matchability = nn.Linear(WIDTH, 1)
        self.final_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x0: Tensor, x1: Tensor, hidden0: Tensor, hidden1: Tensor) -> Tensor:
        """(P, M, WIDTH), (P, N, WIDTH) -> (P, M, N) logarithm of the probability of each match."""
        projected = (self.final_proj(x) / WIDTH**0.25 for x in (x0, x1))
        first, second = projected
        alike = first @ second.transpose(1, 2) + hidden0[:, 0].transpose(1, 2) + hidden1[:, 0]
        matchable = F.logsigmoid(self.matchability(x0)) + F.logsigmoid(self.matchability(x1)).transpose(1, 2)
        return F.log_softmax(alike, dim=2) + F.log_softmax(alike, dim=1) + matchable


class LightGlue(nn.Module):
    """The network, for batches of pairs."""

    def __init__(self, dimension: int = WIDTH) -> None:
        """`dimension` is that of the descriptors."""
        super().__init__()
        self.dimension = dimension
        self.input_proj: nn.Module = nn.Identity() if dimension == WIDTH else nn.Linear(dimension, WIDTH)
        self.posenc = _PositionalEncoding()
        self.transformers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.log_assignment = nn.ModuleDict({str(LAYERS - 1): _Assignment()})

    def forward(
        self,
        keypoints0: Tensor,
        descriptors0: Tensor,
        counts0: Tensor,
        keypoints1: Tensor,
        descriptors1: Tensor,
        counts1: Tensor,
    ) -> Tensor:
        """
        Args:
            keypoints0: (P, M, 2) x, y from the centre of the upright image, over half its longer side.
            descriptors0: (P, M, D) unit length.
            counts0: (P,) int64, keypoints of each image; the rows that follow are padding.
            keypoints1, descriptors1, counts1: of the second images, with N rows.

        Returns:
            (P, M, N) logarithm of the probability of each match.
        """
        hidden = _hidden(counts0, keypoints0), _hidden(counts1, keypoints1)
        rotations = self.posenc(keypoints0), self.posenc(keypoints1)
        x = self.input_proj(descriptors0), self.input_proj(descriptors1)
        for layer in self.transformers:
            x = layer(x, rotations, hidden)
        return cast(Tensor, self.log_assignment[str(LAYERS - 1)](*x, *hidden))


def _hidden(counts: Tensor, keypoints: Tensor) -> Tensor:
    """(P,) -> (P, 1, 1, N): what is added to the logits of each row, much less than 0 for padding."""
    padding = torch.arange(keypoints.shape[1], device=counts.device) >= counts[:, None]
    return padding.to(keypoints.dtype)[:, None, None] * _HIDDEN


class LightGlueBlock(nn.Module):
    """Pairs of a block of images: the form that is exported, with inputs and outputs as `exports.graphs.MatchBlock`."""

    def __init__(self, network: LightGlue) -> None:
        super().__init__()
        self.network = network

    def forward(self, keypoints: Tensor, descriptors: Tensor, counts: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Mutual maxima of the probabilities.

        Args:
            keypoints: (I, N, 2) float32, as `LightGlue` takes them.
            descriptors: (I, N, D) float16.
            counts: (I,) int64, keypoints of each image.
            pairs: (P, 2) int64, places in the block.

        Returns:
            (P, N) int32: the keypoint of the second image, (P, N) float32: its probability, 0 where the two are not
            each other's maximum.
        """
        sides = ((keypoints[side], descriptors[side].float(), counts[side]) for side in (pairs[:, 0], pairs[:, 1]))
        first, second = sides
        logarithms = self.network(*first, *second)  # (P, N, N)
        best, place = logarithms.max(dim=2)
        back = logarithms.argmax(dim=1)
        mutual = back.gather(1, place) == torch.arange(place.shape[1], device=place.device)
        mutual = mutual & (torch.arange(place.shape[1], device=place.device) < first[2][:, None])
        return place.to(torch.int32), torch.where(mutual, best.exp(), 0.0)


def random_lightglue(dimension: int = WIDTH, seed: int = 0) -> LightGlue:
    """Seeded weights, for shape checks and tests."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LightGlue(dimension).eval()


def load_lightglue(file: Path) -> LightGlue:
    """A checkpoint with the names of kornia or of the authors, of descriptors of any dimension.

    Raises:
        WeightsError: it cannot be read, or is not a LightGlue of keypoints and descriptors alone.
    """
    state = {_name(name): value for name, value in read_state(file).items()}
    projection = state.get("input_proj.weight")
    network = LightGlue(WIDTH if projection is None else projection.shape[1]).eval()
    own = network.state_dict()
    state = {name: value for name, value in state.items() if name in own or not _ADAPTIVE.match(name)}
    wrong = sorted(
        name for name in own.keys() | state.keys() if name not in own or not _same(own[name], state.get(name))
    )
    if wrong:
        raise WeightsError(
            f"{file}: not a LightGlue of {LAYERS} layers for keypoints and descriptors ({len(wrong)} tensors differ, "
            f"{wrong[0]} first)"
        )
    network.load_state_dict(state, strict=True)
    return network


def _name(earlier: str) -> str:
    """kornia's name of a tensor."""
    return _EARLIER_NAME.sub(r"transformers.\2.\1.", earlier.removeprefix("matcher."))


def _same(own: Tensor, other: Tensor | None) -> bool:
    return other is not None and own.shape == other.shape
