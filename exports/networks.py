"""The DeDoDe modules in torch. Parameter names follow the published checkpoints."""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.architectures import Level, NetworkConfig
from exports.dinov2 import DINOv2


class VGG19(nn.Module):
    """VGG-19 with batch norm up to stride 8: feature maps at strides 1, 2, 4, 8 (64, 128, 256, 512 channels)."""

    STAGES = ((64, 2), (128, 2), (256, 4), (512, 4))  # channels, convolutions before the pooling

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, convolutions in self.STAGES:
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.layers = nn.ModuleList(layers)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> feature maps, fine to coarse."""
        features = []
        for layer in self.layers[:-1]:
            if isinstance(layer, nn.MaxPool2d):
                features.append(image)
            image = layer(image)
        return [*features, image]


class VGG19WithDINOv2(nn.Module):
    """The encoder of DeDoDe-G: VGG-19, and DINOv2 at stride 14.

    The published checkpoint holds the VGG alone, DINOv2 has its own. So the state dictionary has no DINOv2 in it, and
    loading one leaves DINOv2 as it is; in all else (`.to`, `.half`, `.eval`) it is a part like any other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vgg = VGG19()
        self.dinov2 = DINOv2()
        self.register_state_dict_post_hook(self._leave_out)
        self.register_load_state_dict_pre_hook(self._keep)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W), sides multiples of 56 -> feature maps, fine to coarse."""
        return [*self.vgg(image), self.dinov2(image)]

    @staticmethod
    def _leave_out(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}dinov2.")]:
            del state[key]

    @staticmethod
    def _keep(module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: object) -> None:
        own = cast(VGG19WithDINOv2, module).dinov2.state_dict()
        state.update({f"{prefix}dinov2.{key}": value for key, value in own.items()})


def _conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class StridedEncoder(nn.Module):
    """The nano encoder: strided 3x3 convolutions, one feature map a stride, each half the size of the one before."""

    def __init__(self, finest: int, channels: tuple[int, ...]) -> None:
        """`finest` is the stride of the first feature map, 2 or 4; `channels` are fine to coarse."""
        super().__init__()
        first = channels[0]
        if finest == 2:
            stage = nn.Sequential(_conv_bn_relu(3, first, 2))
        else:
            half = first // 2
            stage = nn.Sequential(_conv_bn_relu(3, half, 2), _conv_bn_relu(half, first, 2), _conv_bn_relu(first, first))
        coarser = (
            nn.Sequential(_conv_bn_relu(before, width, 2), _conv_bn_relu(width, width))
            for before, width in pairwise(channels)
        )
        self.layers = nn.ModuleList((stage, *coarser))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> feature maps, fine to coarse."""
        features = []
        for layer in self.layers:
            image = layer(image)
            features.append(image)
        return features


def _refiner_block(channels_in: int, channels_out: int, kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 1),
    )


class ConvRefiner(nn.Module):
    """1x1 in, depthwise 5x5 blocks with one residual around them all, 1x1 out."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int, blocks: int) -> None:
        super().__init__()
        self.block1 = _refiner_block(channels_in, hidden, kernel=1, groups=1)
        self.hidden_blocks = nn.Sequential(*(_refiner_block(hidden, hidden, 5, hidden) for _ in range(blocks)))
        self.out_conv = nn.Conv2d(hidden, channels_out, 1)

    def hidden(self, features: Tensor) -> Tensor:
        """All but the last 1x1 convolution."""
        x = self.block1(features)
        return cast(Tensor, (self.hidden_blocks(x) + x) / 1.4)


class Decoder(nn.Module):
    """One refiner per level, keyed by stride as in the published checkpoints."""

    def __init__(self, levels: tuple[Level, ...], prototypes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        context = 0
        for level in levels:
            refiner = ConvRefiner(level.features + context, level.hidden, prototypes + level.context, level.blocks)
            self.layers[str(level.stride)] = refiner
            context = level.context


class DeDoDe(nn.Module):
    """A detector or a descriptor, by configuration."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        if config.encoder == "vgg19":
            self.encoder: nn.Module = VGG19()
        elif config.encoder == "vgg19+dinov2":
            self.encoder = VGG19WithDINOv2()
        else:
            fine_to_coarse = config.levels[::-1]
            self.encoder = StridedEncoder(fine_to_coarse[0].stride, tuple(level.features for level in fine_to_coarse))
        self.decoder = Decoder(config.levels, config.prototypes)

    def forward(self, image: Tensor) -> Tensor:
        """Dense prediction.

        Args:
            image: (B, 3, H, W) RGB, ImageNet-normalised; H and W multiples of `config.divisor`.

        Returns:
            (B, P, H/s, W/s): detector logits (P = 1, s = 1) or unnormalised descriptors (P = descriptor size).
        """
        prediction = self._at_one_scale(image)
        for scale, weight in self.config.smaller:
            smaller = self._at_one_scale(F.avg_pool2d(image, scale))
            prediction = prediction + weight * _resize(smaller, prediction, "bilinear")
        return prediction

    def _at_one_scale(self, image: Tensor) -> Tensor:
        coarse, hidden, refiner = self.before_last(image)
        delta = refiner.out_conv(hidden)[:, : self.config.prototypes]
        prediction = _resize(coarse, hidden, self.config.upsample) + delta
        return F.pixel_shuffle(prediction, self.config.shuffle) if self.config.shuffle > 1 else prediction

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: half where the network was halved."""
        return next(self.parameters()).dtype

    def before_last(self, image: Tensor) -> tuple[Tensor, Tensor, "ConvRefiner"]:
        """All but the last upsampling and the last 1x1 convolution, which widen the map most.

        Returns:
            The prediction (B, P, h, w) of the last but one level, the hidden features (B, C, H/s, W/s) of the last one,
            and its refiner, whose `out_conv` is still to be applied.
        """
        prediction = context = None
        levels = list(zip(reversed(self.encoder(image)), self.decoder.layers.values(), strict=True))
        for features, module in levels[:-1]:
            refiner = cast(ConvRefiner, module)
            out = refiner.out_conv(refiner.hidden(_join(features, context)))
            delta, context = out.tensor_split((self.config.prototypes,), dim=1)
            if prediction is not None:
                delta = delta + _resize(prediction, features, self.config.upsample)
            prediction = delta
        features, module = levels[-1]
        refiner = cast(ConvRefiner, module)
        if prediction is None:
            raise ValueError("a network needs two decoder levels or more")
        return prediction, refiner.hidden(_join(features, context)), refiner


def _resize(x: Tensor, like: Tensor, mode: str) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode=mode, align_corners=False)


def _join(features: Tensor, context: Tensor | None) -> Tensor:
    """An encoder's map and the context from the level below, brought to its size."""
    return features if context is None else torch.cat((features, _resize(context, features, "bilinear")), dim=1)


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


class Describe(nn.Module):
    """Image and keypoints in, unit descriptors out: the form in which the descriptor is exported.

    Sampling is linear, and so are the last 1x1 convolution and the last upsampling: they are applied to the samples
    and not to the map, and the dense map (256 channels at full resolution for the published networks) is never made.
    At pixel centres, where the published detector puts its keypoints, this is the dense result. Between them it differs
    by the kinks of a twice-interpolated map; nano's last level is coarse enough to stay dense, and exact everywhere.
    """

    def __init__(self, network: DeDoDe) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """(B, 3, H, W), (B, N, 2) in [-1, 1] -> (B, N, D) unit descriptors."""
        config, image = self.network.config, image.to(self.network.dtype)
        if config.levels[-1].stride > 1:
            return F.normalize(sample(self.network(image), keypoints), dim=-1)
        coarse, hidden, refiner = self.network.before_last(image)
        last = refiner.out_conv
        weight = last.weight[: config.prototypes, :, 0, 0].float()
        assert last.bias is not None
        fine = F.linear(sample(hidden, keypoints), weight, last.bias[: config.prototypes].float())
        return F.normalize(sample(coarse, keypoints) + fine, dim=-1)


class DualSoftmax(nn.Module):
    """Dual-softmax probabilities of every pair of descriptors, with one exponential.

    With E = exp(t (cos - 1)), r and c its row and column sums: P = E^2 / (r c^T). The shift by t replaces the row and
    column maxima, safely, because |cos| <= 1 for unit descriptors.
    """

    def __init__(self, inverse_temperature: float = 20.0) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature

    def forward(self, descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
        """(B, N, D), (B, M, D) unit descriptors -> (B, N, M) probabilities."""
        cosine = descriptors0 @ descriptors1.transpose(1, 2)
        e = ((cosine - 1.0) * self.inverse_temperature).exp()
        return e * e / (e.sum(dim=2, keepdim=True) * e.sum(dim=1, keepdim=True))


class Matcher(nn.Module):
    """Mutual maxima of the dual-softmax probabilities, in a shape that does not depend on what is found.

    TensorRT's parser refuses NonZero, so that every keypoint of the first image has a row, and those without a match a
    score of 0.
    """

    def __init__(self, inverse_temperature: float = 20.0, threshold: float = 0.01) -> None:
        super().__init__()
        self.dual_softmax = DualSoftmax(inverse_temperature)
        self.threshold = threshold

    def forward(self, descriptors0: Tensor, descriptors1: Tensor) -> tuple[Tensor, Tensor]:
        """Matches of a batch of pairs.

        Args:
            descriptors0: (B, N, D) unit descriptors.
            descriptors1: (B, M, D) unit descriptors.

        Returns:
            (B, N) int64 index in 1 of each keypoint of 0, and (B, N) float32 scores, 0 where there is no match.
        """
        p = self.dual_softmax(descriptors0.float(), descriptors1.float())
        best, place = p.amax(dim=2), p.argmax(dim=2)
        mutual = p.amax(dim=1).gather(1, place) == best
        return place, torch.where(mutual & (best > self.threshold), best, 0.0)
