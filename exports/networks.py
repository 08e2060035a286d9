"""The DeDoDe modules in torch. Parameter names follow the published checkpoints."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.config import Level, NetworkConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


def _conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class StridedEncoder(nn.Module):
    """The nano encoder: strided 3x3 convolutions to stride 16, feature maps at strides 4, 8, 16."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        c4, c8, c16 = channels
        self.layers = nn.ModuleList(
            (
                nn.Sequential(_conv_bn_relu(3, c4 // 2, 2), _conv_bn_relu(c4 // 2, c4, 2), _conv_bn_relu(c4, c4)),
                nn.Sequential(_conv_bn_relu(c4, c8, 2), _conv_bn_relu(c8, c8)),
                nn.Sequential(_conv_bn_relu(c8, c16, 2), _conv_bn_relu(c16, c16)),
            )
        )

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

    def forward(self, features: Tensor) -> Tensor:
        x = self.block1(features)
        return cast(Tensor, self.out_conv((self.hidden_blocks(x) + x) / 1.4))


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
        else:
            coarse, middle, fine = (level.features for level in config.levels)
            self.encoder = StridedEncoder((fine, middle, coarse))
        self.decoder = Decoder(config.levels, config.prototypes)

    def forward(self, image: Tensor) -> Tensor:
        """Dense prediction.

        Args:
            image: (B, 3, H, W) RGB, ImageNet-normalised; H and W multiples of `config.divisor`.

        Returns:
            (B, P, H/s, W/s): detector logits (P = 1, s = 1) or unnormalised descriptors (P = descriptor size).
        """
        prediction: Tensor | None = None
        context: Tensor | None = None
        for features, refiner in zip(reversed(self.encoder(image)), self.decoder.layers.values(), strict=True):
            if prediction is not None and context is not None:
                size = features.shape[-2:]
                prediction = F.interpolate(prediction, size=size, mode=self.config.upsample, align_corners=False)
                context = F.interpolate(context, size=size, mode="bilinear", align_corners=False)
                features = torch.cat((features, context), dim=1)
            delta, context = refiner(features).tensor_split((self.config.prototypes,), dim=1)
            prediction = delta if prediction is None else prediction + delta
        assert prediction is not None  # a configuration has at least one level
        return F.pixel_shuffle(prediction, self.config.shuffle) if self.config.shuffle > 1 else prediction


def sample_descriptors(dense: Tensor, keypoints: Tensor) -> Tensor:
    """Unit descriptors at keypoints, by bilinear interpolation.

    Args:
        dense: (B, D, h, w) unnormalised descriptors over the whole image, at any stride.
        keypoints: (B, N, 2) x, y in [-1, 1], where -1 and 1 are the outer edges of the image (align_corners=False).

    Returns:
        (B, N, D) float32, unit length.
    """
    sampled = F.grid_sample(dense.float(), keypoints[:, None], mode="bilinear", align_corners=False)
    return F.normalize(sampled[:, :, 0].transpose(1, 2), dim=-1)


class Describe(nn.Module):
    """Image and keypoints in, unit descriptors out: the form in which the descriptor is exported."""

    def __init__(self, network: DeDoDe) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """(B, 3, H, W), (B, N, 2) in [-1, 1] -> (B, N, D) unit descriptors."""
        return sample_descriptors(self.network(image), keypoints)


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
    """Mutual maxima of the dual-softmax probabilities."""

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
            matches (K, 3) int64 rows of (pair, index in 0, index in 1), and scores (K,) float32.
        """
        p = self.dual_softmax(descriptors0, descriptors1)
        best = (p == p.amax(dim=2, keepdim=True)) & (p == p.amax(dim=1, keepdim=True)) & (p > self.threshold)
        matches = best.nonzero()
        return matches, p[matches[:, 0], matches[:, 1], matches[:, 2]]
