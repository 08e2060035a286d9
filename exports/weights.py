"""A model's networks with weights: published checkpoints, or seeded random ones for checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from torch import Tensor, nn

from exports.networks import DeDoDe, VGG19WithDINOv2
from exports.registry import ModelSpec

_CALIBRATION = 128  # pixels at least; on smaller maps the statistics of a batch are no rule for the next


class WeightsError(ValueError):
    """Weights that do not fit; the message says which file and what was expected."""


@dataclass(frozen=True)
class Networks:
    """A detector and a descriptor with weights, ready for inference."""

    detector: DeDoDe
    descriptor: DeDoDe


def random_networks(spec: ModelSpec, seed: int = 0) -> Networks:
    """Seeded weights for shape checks and tests, with batch norms that fit noise, so that descriptors differ."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        networks = Networks(DeDoDe(spec.detector), DeDoDe(spec.descriptor))
        for network in (networks.detector, networks.descriptor):
            norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
            for norm in norms:
                norm.momentum = None  # the plain average of what it sees
            side = -(-_CALIBRATION // network.config.divisor) * network.config.divisor
            network.train()(torch.randn(2, 3, side, side))
            for norm in norms:
                norm.momentum = 0.1
            network.eval()
    return networks


def load_networks(spec: ModelSpec, files: list[Path]) -> Networks:
    """Loads checkpoints, told apart by what they hold: a detector, a descriptor, a DINOv2.

    Raises:
        WeightsError: a file cannot be read or fits nothing, or a network is left without weights.
    """
    networks = Networks(DeDoDe(spec.detector).eval(), DeDoDe(spec.descriptor).eval())
    parts: dict[str, nn.Module] = {"detector": networks.detector, "descriptor": networks.descriptor}
    if spec.descriptor.encoder == "vgg19+dinov2":
        parts["DINOv2"] = cast(VGG19WithDINOv2, networks.descriptor.encoder).dinov2
    missing = dict(parts)
    for file in files:
        state = read_state(file)
        fitting = [name for name, part in missing.items() if _fits(part, state)]
        if not fitting:
            raise WeightsError(f"{file}: fits none of {', '.join(missing) or 'the networks left'}")
        missing.pop(fitting[0]).load_state_dict(state, strict=True)
    if missing:
        raise WeightsError(f"no weights for {', '.join(missing)}; name their files with --weights")
    return networks


def read_state(file: Path) -> dict[str, Tensor]:
    """A checkpoint, `.safetensors` or of `torch.save`.

    Only tensors are read, never pickled code: a checkpoint from the web runs nothing here.

    Raises:
        WeightsError: it cannot be read, or holds something else.
    """
    try:
        if file.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{file}: not a readable checkpoint, .safetensors or of torch.save") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{file}: not a state dictionary of tensors")
    return state


def _fits(module: nn.Module, state: dict[str, Tensor]) -> bool:
    own = module.state_dict()
    return own.keys() == state.keys() and all(own[key].shape == value.shape for key, value in state.items())
