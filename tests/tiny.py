"""A member of the family with few layers: exporting a network takes a second for every few of them."""

import dataclasses

from exports.architectures import Level, NetworkConfig
from exports.registry import FAMILY

# As nano's, no convolution runs at full size, and the detector's channels are pixels.
DETECTOR = NetworkConfig(
    "strided", (Level(4, 24, 16, 8, 1), Level(2, 16, 16, 0, 1)), prototypes=4, upsample="bilinear", shuffle=2
)
DESCRIPTOR = NetworkConfig(
    "strided", (Level(8, 32, 48, 32, 1), Level(4, 24, 32, 0, 1)), prototypes=64, upsample="bilinear"
)
TINY = dataclasses.replace(FAMILY["dedode-nano"], detector=DETECTOR, descriptor=DESCRIPTOR)
TWO_SCALES = dataclasses.replace(DETECTOR, smaller=((2, 0.25),))
