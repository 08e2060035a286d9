"""What distinguishes one DeDoDe network from another, as data.

Every member of the family is an encoder that yields feature maps at several strides and a decoder that walks them from
coarse to fine, adding at each level to a prediction and handing a context to the next (Edstedt et al., "DeDoDe: Detect,
Don't Describe -- Describe, Don't Detect for Local Feature Matching", 3DV 2024).
"""

import dataclasses
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
    smaller: tuple[tuple[int, float], ...] = ()  # predictions at 1/s of the size that are added, each with its weight

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
DETECTOR_B = NetworkConfig("vgg19", _LEVELS_B, prototypes=1, upsample="bicubic")
DESCRIPTOR_B = NetworkConfig("vgg19", _LEVELS_B, prototypes=256, upsample="bilinear")
DESCRIPTOR_G = NetworkConfig(
    "vgg19+dinov2", (Level(14, 1024, 768, 512, 5), *_LEVELS_B), prototypes=256, upsample="bilinear"
)

# dedode-nano: no convolution runs at full resolution. The detector's 4 channels at stride 2 are the 2x2 pixels of that
# cell (in version 1, 16 channels at stride 4); the descriptor is sampled at stride 4. Version 3 has the weights of
# version 2 and also looks at a half and a quarter of the size, a little: where the picture is sharp, its own pixels
# decide; where it is blurred, they say nothing, and the smaller ones do. Version 4 is the same with other weights.
DETECTOR_NANO_V2 = NetworkConfig(
    "strided",
    (Level(16, 48, 48, 32, 2), Level(8, 32, 32, 32, 2), Level(4, 24, 32, 16, 2), Level(2, 16, 16, 0, 1)),
    prototypes=4,
    upsample="bilinear",
    shuffle=2,
)
DETECTOR_NANO = dataclasses.replace(DETECTOR_NANO_V2, smaller=((2, 0.25), (4, 0.125)))
DETECTOR_NANO_V1 = NetworkConfig(
    "strided",
    (Level(16, 48, 48, 32, 2), Level(8, 32, 32, 32, 2), Level(4, 24, 32, 0, 3)),
    prototypes=16,
    upsample="bilinear",
    shuffle=4,
)
DESCRIPTOR_NANO = NetworkConfig(
    "strided",
    (Level(16, 96, 96, 64, 4), Level(8, 64, 64, 64, 3), Level(4, 32, 64, 0, 2)),
    prototypes=64,
    upsample="bilinear",
)


@dataclass(frozen=True)
class Member:
    """A detector and a descriptor that belong together."""

    detector: NetworkConfig
    descriptor: NetworkConfig
    match_threshold: float  # least dual-softmax probability
    activations: float  # bytes a pixel of an image that a network holds at once, float32; the larger of the two
    pixels_per_keypoint: int = 0  # network pixels; 0: an image may have any number of keypoints
    least_contrast: float = 0.0  # of a keypoint's logit over the lowest within CONTRAST_RADIUS; 0: any

    @property
    def divisor(self) -> int:
        """Of the sides of an image that both networks see, pixels."""
        return math.lcm(self.detector.divisor, self.descriptor.divisor)

    def largest_tensor(self, pixels: int) -> int:
        """Elements of the largest tensor that an image of so many pixels makes in either network."""
        return max(self.detector.largest_tensor(pixels), self.descriptor.largest_tensor(pixels))

    @property
    def alignment(self) -> int:
        """Of the sides of an image for the best result, pixels: what the pipeline pads to."""
        return math.lcm(self.detector.alignment, self.descriptor.alignment)


# nano's detector learned to find a keypoint in 128 pixels. Of images of 320 pixels twice as many make better poses, and
# four times as many do not (`scripts/benchmarks/results/keypoint_density.md`).
_DENSITY = 64
_CONTRAST = 0.25  # of version 4: flat ground has less, inliers of photographs more (the same file)
_NANO_BYTES, _L_BYTES = 132.0, 1700.0  # growth of the peak under ONNX Runtime between 512 and 1024 pixels

FAMILY = {
    "dedode-nano": Member(DETECTOR_NANO, DESCRIPTOR_NANO, 0.2, _NANO_BYTES, _DENSITY, _CONTRAST),
    "dedode-nano-v3": Member(DETECTOR_NANO, DESCRIPTOR_NANO, 0.2, _NANO_BYTES, _DENSITY),
    "dedode-nano-v2": Member(DETECTOR_NANO_V2, DESCRIPTOR_NANO, 0.2, _NANO_BYTES, _DENSITY),
    "dedode-nano-v1": Member(DETECTOR_NANO_V1, DESCRIPTOR_NANO, 0.1, _NANO_BYTES, _DENSITY),
    "dedode-l-b": Member(DETECTOR_L, DESCRIPTOR_B, 0.01, _L_BYTES),
    "dedode-l-g": Member(DETECTOR_L, DESCRIPTOR_G, 0.01, _L_BYTES),
    # the first detector, of the paper; the same network as the second
    "dedode-l-b-v1": Member(DETECTOR_L, DESCRIPTOR_B, 0.01, _L_BYTES),
    "dedode-l-g-v1": Member(DETECTOR_L, DESCRIPTOR_G, 0.01, _L_BYTES),
}


# What the graphs between the networks (`exports.graphs`) are made for, and what goes into them.
NEVER = -1e30  # a logit that nothing reaches, finite for engines that dislike infinities
CONTRAST_RADIUS = 4  # network pixels, in rows and in columns
OUTSIDE, HIDDEN, WANTED = 0, 1, 2  # where keypoints may be: padding; border and masks; elsewhere
PADDING = -1000.0  # in the columns that tell keypoints from padding: exp(t (cos - 1000 - 1)) is 0 for any t in use
MODES = {  # (radius of non-maximum suppression, rank by coverage, refine below the pixel) -> name
    (2, False, True): "nano",
    (2, False, False): "nano-raw",
    (1, True, True): "published",
    (0, True, False): "published-raw",
}
CAPACITIES = (2048, 4096, 8192)  # keypoints; the least that holds `--max-keypoints` is taken


def select_file(mode: str, capacity: int) -> str:
    """File name of a selection."""
    return f"select_{mode}_{capacity}.onnx"
