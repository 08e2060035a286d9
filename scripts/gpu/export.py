"""Makes what `gpu.weights` fills: ONNX files of a model whose large tensors are elsewhere. Needs onnx."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data
from torch import Tensor, nn

from exports.command import padded_size
from exports.half_precision import halved
from exports.networks import DeDoDe
from exports.onnx_export import export_dense_detector, export_descriptor
from exports.registry import FAMILY
from exports.weights import Networks, load_networks, random_networks
from gpu.weights import SUFFIX, FilePlan, TensorPlan, made, norm_after, tensors_of, write_recipe

_SMALL = 256  # bytes; a smaller tensor stays in the file
_PAGE = 4096  # bytes; tensors begin at multiples, so that engines may map the file
_PREFIX = "network."  # of the modules that are exported
_TOLERANCE = {"float32": 1e-5, "float16": 6e-4}  # of a tensor's largest value; half of the last bit is 2^-11


class ExportError(Exception):
    """A tensor of the file is not what the recipe makes."""


def export_without_weights(model: str, folder: Path, weights: list[Path]) -> dict[str, Any]:
    """Both networks of a model in both precisions, `recipe.json`, and the checkpoints where there are any.

    Args:
        model: a name of `exports.registry.FAMILY`.
        folder: where; made here.
        weights: checkpoints, carried in half precision; none: random ones, which are not carried.

    Returns:
        What is said of them in the manifest.

    Raises:
        ExportError: a tensor cannot be made again from the parameter that it came from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = FAMILY[model]
    source = ", ".join(path.name for path in weights) + ", in half precision" if weights else "random, seed 0"
    if weights:
        for name, network in _pair(load_networks(spec, weights)).items():
            state = {key: carried(key, value) for key, value in network.state_dict().items()}
            torch.save(state, folder / f"{name}.pt")
        networks = load_networks(spec, sorted(folder.glob("*.pt")))
    else:
        networks = random_networks(spec)
    shapes = padded_size(model)
    files: dict[str, FilePlan] = {}
    for half in (False, True):
        for name, network in _pair(networks).items():
            path = folder / f"{name}{'_fp16' if half else ''}.onnx"
            export = export_dense_detector if name == "detector" else export_descriptor
            export(halved(network) if half else network, path, shapes)
            files[path.name] = externalise(path, name, network, dtype="float16" if half else "float32")
    write_recipe(folder, source, files)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return {"weights": source, "carried": bool(weights), "files": sizes}


def externalise(path: Path, name: str, network: DeDoDe, *, dtype: str) -> FilePlan:
    """Takes the weights out of an ONNX file, having seen that they can be made again.

    Args:
        path: of the file; written again.
        name: detector or descriptor.
        network: in float32, from which it was exported.
        dtype: of the file's weights, as numpy names it.
    """
    file = onnx.load(path)
    modules, state = dict(network.named_modules()), tensors_of(network)
    data, plans, end = path.with_suffix(SUFFIX).name, [], 0
    for tensor in file.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.nbytes < _SMALL or not tensor.name.startswith(_PREFIX):
            continue
        parameter = tensor.name.removeprefix(_PREFIX)
        found = _origin(parameter, value, modules, state, _TOLERANCE[dtype])
        if found is None:
            raise ExportError(f"{path.name}: {tensor.name} is not made from the parameter of that name")
        start = -(-end // _PAGE) * _PAGE
        plan = TensorPlan(parameter, *found, value.shape, start, value.nbytes)
        plans.append(plan)
        end = plan.offset + plan.length
        set_external_data(tensor, data, plan.offset, plan.length)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    path.write_bytes(file.SerializeToString())
    return FilePlan(name, data, dtype, tuple(plans))


def _origin(
    parameter: str,
    value: NDArray[Any],
    modules: Mapping[str, nn.Module],
    state: Mapping[str, Tensor],
    tolerance: float,
) -> tuple[str | None, bool] | None:
    """The batch norm that is folded in, and whether the tensor is transposed; None where neither makes it."""
    for norm in dict.fromkeys((norm_after(parameter, modules), None)):
        for transposed in (False, True):
            try:
                candidate = made(parameter, norm, transposed, modules, state)
            except KeyError:
                continue
            if candidate.shape == value.shape:
                apart = np.abs(candidate - value.astype(np.float32)).max()
                if apart <= tolerance * max(float(np.abs(candidate).max()), 1e-6):
                    return norm, transposed
    return None


def _pair(networks: Networks) -> dict[str, DeDoDe]:
    return {"detector": networks.detector, "descriptor": networks.descriptor}


def carried(key: str, value: Tensor) -> Tensor:
    """A parameter as it is carried. Statistics of batch norms stay float32: a variance may overflow half precision."""
    return value.half() if value.is_floating_point() and ".running_" not in f".{key}" else value
