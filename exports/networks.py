"""The DeDoDe modules in torch. Parameter names follow the published checkpoints."""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exports.architectures import Level, NetworkConfig
from exports.dinov2 import DINOv2
from exports.sampling import sample, sample_rows


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

    def forward(self, image: Tensor, scale: int = 1) -> list[Tensor]:
        """(B, 3, H, W), sides multiples of `scale` -> feature maps of the image at 1/scale, fine to coarse."""
        first, *others = _flat(self.layers[0])
        x = first(image) if scale == 1 else _of_means(cast(nn.Conv2d, first), image, scale)
        for layer in others:
            x = layer(x)
        features = [x]
        for layer in self.layers[1:]:
            features.append(layer(features[-1]))
        return features


def _flat(stage: nn.Module) -> list[nn.Module]:
    return (
        [layer for each in stage.children() for layer in _flat(each)] if isinstance(stage, nn.Sequential) else [stage]
    )


def _of_means(convolution: nn.Conv2d, image: Tensor, scale: int) -> Tensor:
    """A convolution padded by 1, of means over `scale` x `scale` pixels: one larger convolution of the pixels."""
    out, channels, rows, columns = convolution.weight.shape
    each = (convolution.weight / scale**2)[:, :, :, None, :, None].expand(-1, -1, -1, scale, -1, scale)
    weight = each.reshape(out, channels, rows * scale, columns * scale)
    return F.conv2d(image, weight, convolution.bias, convolution.stride[0] * scale, padding=scale)


def _refiner_block(channels_in: int, channels_out: int, kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 1),
    )


class ConvRefiner(nn.Module):
    """1x1 in, depthwise 5x5 blocks with one residual around them all, 1x1 out.

    Convolutions of 1x1 are linear, pixel by pixel, and so they are applied where that is cheapest: to the encoder's map
    and to the context each for itself, not to both side by side, and to the context before it is enlarged; to the
    prediction and the context that come out apart; to samples in place of maps.
    """

    SHRINK = 1.4  # of the residual's sum

    def __init__(self, channels_in: int, hidden: int, channels_out: int, blocks: int) -> None:
        super().__init__()
        self.block1 = _refiner_block(channels_in, hidden, kernel=1, groups=1)
        self.hidden_blocks = nn.Sequential(*(_refiner_block(hidden, hidden, 5, hidden) for _ in range(blocks)))
        self.out_conv = nn.Conv2d(hidden, channels_out, 1)

    def hidden(self, features: Tensor, context: Tensor | None, *, whole: bool) -> tuple[Tensor, Tensor]:
        """All that is not linear.

        Args:
            features: (B, C, h, w) of the encoder.
            context: (B, D, h', w') from the level below, None at the coarsest.
            whole: see `_resize`.

        Returns:
            (B, hidden, h, w) twice: what goes into the last block's 1x1 convolution, and what is added behind it.
        """
        first = cast(nn.Conv2d, self.block1[0])
        if context is None:
            x = first(features)
        else:
            own, below = first.weight[:, : features.shape[1]], first.weight[:, features.shape[1] :]
            # their interpolation's weights sum to 1: a 1x1 convolution may as well come before it
            x = F.conv2d(features, own, first.bias) + _resize(F.conv2d(context, below), features, whole=whole)
        x = residual = self.block1[1:](x)
        for layer in _flat(self.hidden_blocks)[:-1]:
            x = layer(x)
        return x, residual

    def out(self, hidden: tuple[Tensor, Tensor], prototypes: int) -> tuple[Tensor, Tensor | None]:
        """What `hidden` gave -> the prediction (B, prototypes, h, w), and the context for the next level, if any."""
        x, residual = hidden
        x = self._last(x) + residual
        weight, bias = self.out_conv.weight / self.SHRINK, cast(Tensor, self.out_conv.bias)
        prediction = F.conv2d(x, weight[:prototypes], bias[:prototypes])
        context = F.conv2d(x, weight[prototypes:], bias[prototypes:]) if len(weight) > prototypes else None
        return prediction, context

    def out_of_samples(self, hidden: tuple[Tensor, Tensor], prototypes: int) -> Tensor:
        """The prediction alone, from samples of the two maps: (B, N, hidden) float32 twice -> (B, N, prototypes)."""
        x, residual = hidden
        x = (_linear(self._last, x) + residual) / self.SHRINK
        return _linear(self.out_conv, x, prototypes)

    @property
    def _last(self) -> nn.Conv2d:
        return cast(nn.Conv2d, _flat(self.hidden_blocks)[-1])


def _linear(convolution: nn.Conv2d, x: Tensor, channels: int | None = None) -> Tensor:
    """A 1x1 convolution's first channels for samples (B, N, C) in place of a map, in float32."""
    weight, bias = convolution.weight[:channels, :, 0, 0], cast(Tensor, convolution.bias)[:channels]
    return F.linear(x, weight.float(), bias.float())


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
        self.sides = config.divisor  # pixels: a multiple of it where an export knows that sides are multiples of that
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
            prediction = prediction + _resize(weight * self._at_one_scale(image, scale), prediction)
        return prediction

    def _at_one_scale(self, image: Tensor, scale: int = 1) -> Tensor:
        coarse, hidden, refiner = self.before_last(image, scale)
        prediction, _ = refiner.out(hidden, self.config.prototypes)
        prediction = prediction + _resize(coarse, hidden[0], self.config.upsample, whole=self._whole(scale))
        return F.pixel_shuffle(prediction, self.config.shuffle) if self.config.shuffle > 1 else prediction

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: half where the network was halved."""
        return next(self.parameters()).dtype

    def _whole(self, scale: int) -> bool:
        """Whether every level's map is known to fill the image at 1/scale: none is cut off."""
        return self.sides % (self.config.divisor * scale) == 0

    def before_last(self, image: Tensor, scale: int = 1) -> tuple[Tensor, tuple[Tensor, Tensor], ConvRefiner]:
        """All but the last upsampling and the last 1x1 convolutions, which are linear and widen the map most.

        Returns:
            The prediction (B, P, h, w) of the last but one level, the hidden features (B, C, H/s, W/s) twice of the
            last one, and its refiner, whose `out` is still to be applied.
        """
        prediction = context = None
        whole = self._whole(scale)
        maps = self.encoder(image) if scale == 1 else self.encoder(image, scale)
        levels = list(zip(reversed(maps), self.decoder.layers.values(), strict=True))
        for features, module in levels[:-1]:
            refiner = cast(ConvRefiner, module)
            delta, context = refiner.out(refiner.hidden(features, context, whole=whole), self.config.prototypes)
            if prediction is not None:
                delta = delta + _resize(prediction, features, self.config.upsample, whole=whole)
            prediction = delta
        features, module = levels[-1]
        refiner = cast(ConvRefiner, module)
        if prediction is None:
            raise ValueError("a network needs two decoder levels or more")
        return prediction, refiner.hidden(features, context, whole=whole), refiner


def _resize(x: Tensor, like: Tensor, mode: str = "bilinear", *, whole: bool = False) -> Tensor:
    """Enlarged to the size of `like`.

    Where sizes are `whole`, twice the size is asked for as such, and not by a size that the graph would compute: the
    result is the same, and ONNX Runtime stays in the layout of its convolutions.
    """
    (height, width), size = x.shape[-2:], like.shape[-2:]
    if whole and size[0] == 2 * height and size[1] == 2 * width:
        return F.interpolate(x, scale_factor=2.0, mode=mode, align_corners=False)
    return F.interpolate(x, size=size, mode=mode, align_corners=False)


class Describe(nn.Module):
    """Image and keypoints in, unit descriptors out: the form in which the descriptor is exported.

    Sampling is linear, and so are the last 1x1 convolutions and the last upsampling: they are applied to the samples
    and not to the map, and the dense map (256 channels at full resolution for the published networks) is never made.
    At pixel centres, where the published detector puts its keypoints, this is the dense result. Between them it differs
    by the kinks of a twice-interpolated map; nano, whose last level is coarser, keeps those and is exact everywhere.
    """

    def __init__(self, network: DeDoDe) -> None:
        super().__init__()
        self.network = network

    @property
    def _by_rows(self) -> bool:
        """Half precision is for GPUs, which sample well themselves; at full size, maps are too large to turn over."""
        config = self.network.config
        before, last = (level.stride for level in config.levels[-2:])
        small = last > 1 and before == 2 * last and config.upsample == "bilinear"
        return small and self.network.dtype == torch.float32

    def forward(self, image: Tensor, keypoints: Tensor) -> Tensor:
        """(B, 3, H, W), (B, N, 2) in [-1, 1] -> (B, N, D) unit descriptors."""
        config, image = self.network.config, image.to(self.network.dtype)
        coarse, hidden, refiner = self.network.before_last(image)
        if self._by_rows:
            x, residual = (sample_rows(each, keypoints) for each in hidden)
            prediction = sample_rows(coarse, keypoints, doubled=True)
        else:
            if config.levels[-1].stride > 1:
                coarse = _resize(coarse, hidden[0], config.upsample, whole=True)
            x, residual, prediction = (sample(each, keypoints) for each in (*hidden, coarse))
        return F.normalize(prediction + refiner.out_of_samples((x, residual), config.prototypes), dim=-1)


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
