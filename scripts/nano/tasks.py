"""What a step of training asks of the networks: a loss, and figures for the log."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from exports.graph_constants import IMAGENET_MEAN, IMAGENET_STD
from nano import losses
from nano.distillation import Teacher, divergence
from nano.losses import Overlap
from nano.views import Views

_LOCAL, _PLACE = 5.0, 0.5  # weights beside the divergence over the whole view


@dataclass(frozen=True)
class Asked:
    """Of one step."""

    loss: Tensor
    logits: Tensor  # (2B, 1, S, S) of the detector
    values: dict[str, float]


class Task(Protocol):
    """Networks, and what they learn."""

    trained: nn.ModuleDict  # apart, because the networks share nothing

    def __call__(self, step: int, batch: Views, seen: Overlap) -> Asked:
        """The step's loss. `seen`: the overlap of the batch's views."""


@dataclass
class Agreement:
    """Both networks, from photographs alone: the detector by its own agreement, the descriptor by known matches."""

    trained: nn.ModuleDict
    seed: int
    localise: float  # weight of the localisation loss

    def __call__(self, step: int, batch: Views, seen: Overlap) -> Asked:
        images = normalised(batch.images)
        logits, dense = self.trained["detector"](images), self.trained["descriptor"](images)
        detector = losses.detector_loss(logits, batch, seen, corner_prior(step))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        descriptor, accuracy = losses.descriptor_loss(dense, logits.detach(), seen, generator)
        place = losses.mean_distance(*losses.disagreement(logits, seen))
        ramp = self.localise * min(1.0, step / 1000)  # peaks must repeat before they can be placed
        values = {"detector": detector, "descriptor": descriptor, "accuracy": accuracy, "place_px": place}
        return Asked(detector + ramp * place + descriptor, logits, {k: float(v) for k, v in values.items()})


@dataclass
class Distillation:
    """The detector alone, from what a teacher says of the clean views."""

    trained: nn.ModuleDict
    teacher: Teacher
    seed: int

    def __call__(self, step: int, batch: Views, seen: Overlap) -> Asked:
        rng = np.random.default_rng((self.seed, step))
        target = self.teacher.target(normalised(batch.clean), seen, losses.overlap(batch.swapped()), rng)
        logits = self.trained["detector"](normalised(batch.images))
        whole, local = divergence(logits, target, batch.valid)
        squared, both = losses.disagreement(logits, seen)
        loss = whole + _LOCAL * local + _PLACE * losses.robust_distance(squared, both)
        values = {"whole": whole, "local": local, "place_px": losses.mean_distance(squared, both)}
        return Asked(loss, logits, {k: float(v) for k, v in values.items()})


def normalised(images: Tensor) -> Tensor:
    """As the networks want them, in the layout that is twice as fast on a CPU."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def corner_prior(step: int) -> float:
    """1.0, fading to 0.1 from step 300 to step 1,800: corners start the detector, its own agreement finishes it."""
    return max(0.1, 1.0 - 0.9 * max(0, step - 300) / 1500)
