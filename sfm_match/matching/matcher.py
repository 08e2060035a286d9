"""What a matcher is, and the table of matchers."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from sfm_match.images.files import Header
from sfm_match.job.concurrency import WorkerThreads
from sfm_match.options.stages import MatchOptions
from sfm_match.store.matches import Matches

Descriptors = NDArray[np.float16]  # (N, D) of an image, unit length; of several rotations, side by side
Names = tuple[str, ...]


class ImageFeatures(Protocol):
    """What a matcher may ask of images, by name. Several threads may ask."""

    def descriptors(self, names: Sequence[str]) -> list[Descriptors]:
        """(N, D) of each image."""

    def keypoints(self, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """(N, 2) x, y of each image, raw pixels, the centre of the top-left one at (0.5, 0.5)."""

    def headers(self, names: Sequence[str]) -> list[Header]:
        """Size and orientation of each image."""


@dataclass(frozen=True)
class DescriptorsOnly:
    """Images of which a matcher gets descriptors, and nothing else."""

    ask: Callable[[Sequence[str]], list[Descriptors]]

    def descriptors(self, names: Sequence[str]) -> list[Descriptors]:
        """(N, D) of each image."""
        return self.ask(names)

    def keypoints(self, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """Raises NotImplementedError."""
        raise NotImplementedError

    def headers(self, names: Sequence[str]) -> list[Header]:
        """Raises NotImplementedError."""
        raise NotImplementedError


@dataclass(frozen=True)
class MatchSettings:
    """What a matcher is made for."""

    options: MatchOptions
    threshold: float  # least probability of a match
    inverse_temperature: float  # of the dual softmax
    rotations: int  # in which images were described
    keypoints: int  # of an image, at most
    dimension: int  # of a descriptor
    group: int  # images in each of the two groups of a block, at most
    lightglue: str = ""  # the published LightGlue for the features' model; empty: there is none


class Matcher(Protocol):
    """Matches the pairs of a block of images."""

    @property
    def engine(self) -> str:
        """What runs, for the report; empty: numpy."""

    @property
    def note(self) -> str:
        """Which kernels it chose, known after its first call; empty where there was no choice."""

    @property
    def on_device(self) -> bool:
        """Whether it keeps descriptors on a device: reading them from the disk would hold it up."""

    @property
    def workers(self) -> WorkerThreads:
        """The threads from which it may be called at once."""

    def match(self, groups: Sequence[Names], images: ImageFeatures, pairs: NDArray[np.int32]) -> list[Matches]:
        """
        Args:
            groups: names of the block's images in two groups; the second may be empty.
            images: gives what is needed of them.
            pairs: (P, 2) places in the block: in the first group, then in the second.

        Returns:
            P, in their order: keypoints that match and their probabilities.
        """


# A new matcher is a module with `create(settings, device, advance)`, and a line here.
MATCHERS = {"dual-softmax": "sfm_match.matching.dual_softmax_matcher", "lightglue": "sfm_match.matching.lightglue"}
_Create = Callable[[MatchSettings, str, Callable[[int], None]], Matcher]


def create_matcher(name: str, settings: MatchSettings, device: str, advance: Callable[[int], None]) -> Matcher:
    """
    Args:
        name: of `MATCHERS`.
        settings: what it is made for.
        device: as `runtime.choose` takes it.
        advance: told how many pairs are done; from any thread.

    Raises:
        UsageError: the device is not here.
        EngineError: the engine refuses the network, or has no memory for one pair.
    """
    return cast(_Create, importlib.import_module(MATCHERS[name]).create)(settings, device, advance)
