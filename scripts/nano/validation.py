"""What a checkpoint is worth while it trains: the planar sequences, by the pipeline's own selection and matcher."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from evaluation.homographies import Sequence, score_sequence
from evaluation.images import read_image
from evaluation.methods import Described, Indices, cosines
from numpy.typing import NDArray
from torch import nn

from exports.networks import DeDoDe, Describe
from exports.registry import FAMILY
from sfm_match.features.keypoint_selection import Selection, select_keypoints
from sfm_match.images.coordinates import normalised_from_network, plan_geometry
from sfm_match.images.loader import normalise, to_network
from sfm_match.matching.dual_softmax import match_descriptors

_NANO = FAMILY["dedode-nano"]
_HOW = Selection(max_keypoints=2048, threshold=0.0, border=4, nms_radius=_NANO.nms_radius, subpixel=True)
FIGURES = ("mma@1", "mma@3", "mma@5", "repeatability@1", "repeatability@3")


class Networks:
    """The networks in training as a method of `evaluation`."""

    name = "dedode-nano in training"

    def __init__(self, nets: nn.ModuleDict, size: int = 1024) -> None:
        self._nets, self._size = nets, size

    @torch.no_grad()
    def extract(self, folder: Path) -> dict[str, Described]:
        """Features of every image of a folder."""
        found = {}
        for path in sorted(folder.glob("img*")):
            raw = read_image(path)[..., ::-1]
            frame = plan_geometry((raw.shape[1], raw.shape[0]), 1, self._size, _NANO.alignment)
            image = torch.from_numpy(normalise(to_network(np.ascontiguousarray(raw), frame)))[None]
            logits = self._nets["detector"](image)[0, 0].numpy()
            points, _ = select_keypoints(logits, frame.network_size, _HOW)
            places = torch.from_numpy(normalised_from_network(points, frame.bucket))[None]
            descriptors = Describe(cast(DeDoDe, self._nets["descriptor"]))(image, places)[0].numpy()
            found[path.name] = Described(frame.raw_from_network(points), descriptors)
        return found

    def match(self, a: Described, b: Described) -> Indices:
        return match_descriptors(a.descriptors, b.descriptors, _NANO.match_threshold).indices.astype(np.int64)

    def similarity(self, a: Described, b: Described) -> NDArray[np.float32]:
        return cosines(a, b)


def validate(nets: nn.ModuleDict, folder: Path) -> dict[str, float]:
    """Means over the sequences under `folder`: matching accuracy and repeatability at 1, 3, 5 pixels."""
    was_training = nets.training
    nets.eval()
    rows = [score_sequence(Sequence(place), Networks(nets)) for place in sorted(folder.iterdir()) if place.is_dir()]
    nets.train(was_training)
    return {f"val_{key}": round(float(np.mean([row[key] for row in rows])), 4) for key in FIGURES}
