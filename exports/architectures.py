"""What distinguishes one DeDoDe network from another, as data.

Every member of the family is an encoder that yields feature maps at several strides and a decoder that walks them from
coarse to fine, adding at each level to a prediction and handing a context to the next (Edstedt et al., "DeDoDe: Detect,
Don't Describe -- Describe, Don't Detect for Local Feature Matching", 3DV 2024).
"""

import math
from dataclasses import dataclass
from typing import Literal

DINOV2_PATCH, DINOV2_HEADS = 14, 16  # pixels; of ViT-L


@dataclass(frozen=True)
class Level:
    """One decoder level: a `ConvRefiner` at one stride of the encoder."""

    stride: int  # network pixels per feature
    features: int  # channels of the encoder's map at this stride
    hidden: int  # channels inside the refiner
    context: int  # channels handed on to the next finer level
    blocks: int  # residual 5x5 depthwise blocks


@dataclass(frozen=True)
class NetworkConfig:
    """A detector (1 prediction per pixel) or a descriptor (`prototypes` = descriptor size)."""

    encoder: Literal["vgg19", "vgg19+dinov2", "strided"]
    levels: tuple[Level, ...]  # coarse to fine
    prototypes: int  # channels of the prediction
    upsample: Literal["bicubic", "bilinear"]  # of the prediction; the context is always bilinear
    shuffle: int = 1  # pixel-shuffle factor of the final prediction
    smaller: tuple[tuple[int, float], ...] = ()  # strided: predictions at 1/s of the size, added with these weights

    @property
    def divisor(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return math.lcm(*(level.stride for level in self.levels))

    def largest_tensor(self, pixels: int) -> int:
        """Elements of the largest tensor that an image of so many pixels makes in the network."""
        channels, context = [3.0], 0
        if self.encoder != "strided":
            channels.append(64)  # VGG-19's first, at full size
        for level in self.levels:
            widest = max(level.features + context, level.hidden)
            if level is not self.levels[-1] or level.stride > 1:  # the last 1x1 works on samples (`Describe`)
                widest = max(widest, self.prototypes + level.context)
            channels.append(widest / level.stride**2)
            context = level.context
        largest = math.ceil(max(channels) * pixels)
        if self.encoder == "vgg19+dinov2":
            tokens = pixels // DINOV2_PATCH**2 + 1
            largest = max(largest, DINOV2_HEADS * tokens**2)  # of its attention
        return largest

    @property
    def alignment(self) -> int:
        """Image sides that are multiples of this many pixels lie on whole features at every scale, too."""
        return self.divisor * max((scale for scale, _ in self.smaller), default=1)


_LEVELS_L = (Level(8, 512, 512, 256, 8), Level(4, 256, 256, 128, 8), Level(2, 128, 128, 64, 8), Level(1, 64, 64, 1, 8))
_LEVELS_B = (Level(8, 512, 512, 256, 5), Level(4, 256, 256, 128, 5), Level(2, 128, 64, 32, 5), Level(1, 64, 32, 1, 5))

# The published networks. G is B on top of DINOv2 ViT-L/14.
DETECTOR_L = NetworkConfig("vgg19", _LEVELS_L, prototypes=1, upsample="bicubic")
DESCRIPTOR_B = NetworkConfig("vgg19", _LEVELS_B, prototypes=256, upsample="bilinear")
DESCRIPTOR_G = NetworkConfig(
    "vgg19+dinov2", (Level(14, 1024, 768, 512, 5), *_LEVELS_B), prototypes=256, upsample="bilinear"
)

# dedode-nano: no convolution runs at full resolution. The detector's 4 channels at stride 2 are the 2x2 pixels of that
# cell; the descriptor is sampled at stride 4. The detector also looks at a half and a quarter of the size, a little:
# where the picture is sharp, its own pixels decide; where it is blurred, they say nothing, and the smaller ones do.
DETECTOR_NANO = NetworkConfig(
    "strided",
    (Level(16, 48, 48, 32, 2), Level(8, 32, 32, 32, 2), Level(4, 24, 32, 16, 2), Level(2, 16, 16, 0, 1)),
    prototypes=4,
    upsample="bilinear",
    shuffle=2,
    smaller=((2, 0.25), (4, 0.125)),
)
DESCRIPTOR_NANO = NetworkConfig(
    "strided",
    (Level(16, 96, 96, 64, 4), Level(8, 64, 64, 64, 3), Level(4, 32, 64, 0, 2)),
    prototypes=64,
    upsample="bilinear",
)
