"""ONNX files without their weights: the machine that runs them makes the weights again, from a seed or a checkpoint.

A network of L-B has 29 MB of weights in half precision, and a kit that carried both networks in both precisions would
not fit. So the kit keeps the graphs alone: each large tensor is ONNX external data in a file that is not carried, and
`recipe.json` beside it says of which parameter it is made, and which batch norm is folded in. Needs torch and numpy,
not onnx.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exports.weights import Networks

RECIPE = "recipe.json"
SUFFIX = ".weights"  # of the file with a network's external data


@dataclass(frozen=True)
class TensorPlan:
    """A tensor of an ONNX file, and what it is made of."""

    parameter: str  # of the network, as torch names it
    norm: str | None  # batch norm that is folded in
    transposed: bool
    shape: tuple[int, ...]
    offset: int  # bytes
    length: int

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "TensorPlan":
        return cls(**{**found, "shape": tuple(found["shape"])})


@dataclass(frozen=True)
class FilePlan:
    """An ONNX file whose weights are external."""

    network: str  # detector or descriptor
    data: str  # file name of the external data
    dtype: str  # of numpy
    tensors: tuple[TensorPlan, ...]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "FilePlan":
        return cls(**{**found, "tensors": tuple(map(TensorPlan.from_json, found["tensors"]))})

    @property
    def length(self) -> int:
        """Bytes of the external data."""
        return max((tensor.offset + tensor.length for tensor in self.tensors), default=0)


def write_recipe(folder: Path, source: str, files: Mapping[str, FilePlan]) -> None:
    """Of all files of a folder; `source` says in words whose weights they are made for."""
    recipe = {"weights": source, "files": {name: asdict(plan) for name, plan in files.items()}}
    (folder / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")


def read_recipe(folder: Path) -> dict[str, FilePlan]:
    """Each ONNX file that needs weights; empty where the folder has no recipe."""
    path = folder / RECIPE
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["files"]
    return {name: FilePlan.from_json(plan) for name, plan in found.items()}


def fill(folder: Path, networks: Networks) -> list[Path]:
    """Writes the external data that the recipe of a folder asks for and that is not there.

    Args:
        folder: with ONNX files and `recipe.json`.
        networks: float32, on the CPU.

    Returns:
        The files that were written; each stands whole or not at all.

    Raises:
        KeyError: a parameter of the recipe that the network has not.
        ValueError: a tensor that has another shape than the recipe says.
    """
    written = []
    for plan in read_recipe(folder).values():
        path = folder / plan.data
        if path.is_file() and path.stat().st_size == plan.length:
            continue
        network = networks.detector if plan.network == "detector" else networks.descriptor
        modules, state = dict(network.named_modules()), tensors_of(network)
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        with temporary.open("wb") as file:
            for tensor in plan.tensors:
                value = made(tensor.parameter, tensor.norm, tensor.transposed, modules, state)
                if value.shape != tensor.shape:
                    raise ValueError(f"{tensor.parameter}: {value.shape}, the recipe says {tensor.shape}")
                file.seek(tensor.offset)
                file.write(np.ascontiguousarray(value.astype(plan.dtype)).tobytes())
        os.replace(temporary, path)
        written.append(path)
    return written


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name. Not the state dictionary: DeDoDe-G's leaves DINOv2 out."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def made(
    parameter: str, norm: str | None, transposed: bool, modules: Mapping[str, nn.Module], state: Mapping[str, Tensor]
) -> NDArray[np.float32]:
    """A tensor as an ONNX file has it: with y = gamma (conv(x) - mean) / sqrt(var + eps) + beta in the convolution.

    Args:
        parameter: of the network.
        norm: the batch norm that follows its convolution and is folded in, None for none.
        transposed: as matrix products want it.
        modules, state: of the network, by name.
    """
    with torch.inference_mode():
        if norm is None:
            value = state.get(parameter)
            if value is None:
                raise KeyError(parameter)
        else:
            batch_norm = modules[norm]
            if not isinstance(batch_norm, nn.BatchNorm2d):
                raise KeyError(f"{norm} is no batch norm")
            mean, variance = batch_norm.running_mean, batch_norm.running_var
            if mean is None or variance is None:
                raise KeyError(f"{norm} keeps no statistics")
            scale = batch_norm.weight / (variance + batch_norm.eps).sqrt()
            if parameter.endswith(".weight"):
                value = state[parameter] * scale.view(-1, 1, 1, 1)
            else:
                bias = state.get(parameter, torch.zeros_like(mean))  # nano's convolutions have none
                value = (bias - mean) * scale + batch_norm.bias
        array: NDArray[np.float32] = value.float().numpy()
    return array.T if transposed else array


def norm_after(parameter: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The batch norm that follows a parameter's convolution in its list of modules."""
    path = parameter.rsplit(".", 1)[0]
    parent, _, place = path.rpartition(".")
    if not place.isdecimal() or not isinstance(modules.get(path), nn.Conv2d):
        return None
    after = f"{parent}.{int(place) + 1}"
    return after if isinstance(modules.get(after), nn.BatchNorm2d) else None
