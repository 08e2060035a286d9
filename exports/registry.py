"""Every model by name, with everything that the pipeline asks of it: another network is one line of `FAMILY`."""

import math
from dataclasses import dataclass

from exports.architectures import (
    DESCRIPTOR_B,
    DESCRIPTOR_G,
    DESCRIPTOR_NANO,
    DETECTOR_L,
    DETECTOR_NANO,
    NetworkConfig,
)


@dataclass(frozen=True)
class WeightsFile:
    """One published file. `sha256` is None where only the first download can tell."""

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A detector and a descriptor that belong together, and how they are used.

    Both take RGB, ImageNet-normalised (`exports.graph_constants`).
    """

    detector: NetworkConfig
    descriptor: NetworkConfig
    match_threshold: float  # least dual-softmax probability that pays for this model
    inverse_temperature: float = 20.0  # of the dual softmax
    activations: float  # bytes a pixel of an image that a network holds at once, float32; the larger of the two
    weights: tuple[WeightsFile, ...]  # to download; none: they come with sfm_match, in a folder of the model's name
    published: bool  # keypoints are ranked as the published DeDoDe ranks them: by coverage
    nms_radius: int  # network pixels; a keypoint is the strongest within this distance (in rows and in columns)
    pixels_per_keypoint: int = 0  # network pixels; half as many in images of few keypoints; 0: no limit
    least_contrast: float = 0.0  # of a keypoint's logit over the lowest within CONTRAST_RADIUS; 0: any
    lightglue: str = ""  # the published LightGlue for its descriptors, of `LIGHTGLUE`; empty: there is none

    @property
    def packaged(self) -> bool:
        """The weights come with sfm_match."""
        return not self.weights

    @property
    def dimension(self) -> int:
        """Of a descriptor."""
        return self.descriptor.prototypes

    @property
    def divisor(self) -> int:
        """Image sides must be multiples of this many pixels for both networks."""
        return math.lcm(self.detector.divisor, self.descriptor.divisor)

    @property
    def alignment(self) -> int:
        """Image sides that are multiples of this many pixels give the best result: the pipeline pads to them."""
        return math.lcm(self.detector.alignment, self.descriptor.alignment)

    def largest_tensor(self, pixels: int) -> int:
        """Elements of the largest tensor that an image of so many pixels makes in either network."""
        return max(self.detector.largest_tensor(pixels), self.descriptor.largest_tensor(pixels))


_DEDODE = "https://github.com/Parskatt/DeDoDe/releases/download"
_DETECTOR_L_V2 = WeightsFile(
    "dedode_detector_L_v2.pth",
    f"{_DEDODE}/v2/dedode_detector_L_v2.pth",
    "4113809dd9e0367af013a45fc2255a6b243ff241cd06520d17a65d9e231bdc17",
)
_DETECTOR_L_V1 = WeightsFile("dedode_detector_L.pth", f"{_DEDODE}/dedode_pretrained_models/dedode_detector_L.pth")
_DESCRIPTOR_B = WeightsFile("dedode_descriptor_B.pth", f"{_DEDODE}/dedode_pretrained_models/dedode_descriptor_B.pth")
_DESCRIPTOR_G = WeightsFile(
    "dedode_descriptor_G.pth",
    f"{_DEDODE}/dedode_pretrained_models/dedode_descriptor_G.pth",
    "ef6e3f2911bb3c179960db15545a2137d0746054bb5bad75559524ccab1fee41",
)
_DINOV2 = WeightsFile(
    "dinov2_vitl14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
)


# Those that kornia names; nobody whom we trust published their hashes.
_LIGHTGLUE = "https://huggingface.co/kornia/lightglue/resolve/main"
LIGHTGLUE = {
    "lightglue-dedode-b": WeightsFile("dedodeb_lightglue.pth", f"{_LIGHTGLUE}/dedodeb_lightglue.pth"),
    "lightglue-dedode-g": WeightsFile("dedodeg_lightglue.pth", f"{_LIGHTGLUE}/dedodeg_lightglue.pth"),
}


def _published(descriptor: NetworkConfig, *weights: WeightsFile) -> ModelSpec:
    return ModelSpec(
        detector=DETECTOR_L,
        descriptor=descriptor,
        match_threshold=0.01,
        activations=1700.0,  # growth of the peak under ONNX Runtime between 512 and 1024 pixels
        weights=weights,
        published=True,
        nms_radius=1,
        lightglue="lightglue-dedode-b" if descriptor is DESCRIPTOR_B else "lightglue-dedode-g",
    )


FAMILY = {
    "dedode-nano": ModelSpec(
        detector=DETECTOR_NANO,
        descriptor=DESCRIPTOR_NANO,
        match_threshold=0.2,
        activations=132.0,  # as above
        weights=(),
        published=False,
        nms_radius=2,
        # The detector learned to find a keypoint in 128 pixels. Of images of 640 pixels twice as many make no better
        # poses for twice the time; of images of 320 they do (`scripts/benchmarks/results/keypoint_density.md`).
        pixels_per_keypoint=128,
        least_contrast=0.25,  # flat areas have less, inliers of photographs more (the same file)
    ),
    "dedode-l-b": _published(DESCRIPTOR_B, _DETECTOR_L_V2, _DESCRIPTOR_B),
    "dedode-l-g": _published(DESCRIPTOR_G, _DETECTOR_L_V2, _DESCRIPTOR_G, _DINOV2),
    # the first detector, of the paper: other weights of the same network
    "dedode-l-b-v1": _published(DESCRIPTOR_B, _DETECTOR_L_V1, _DESCRIPTOR_B),
    "dedode-l-g-v1": _published(DESCRIPTOR_G, _DETECTOR_L_V1, _DESCRIPTOR_G, _DINOV2),
}
