"""Networks travel without their weights: the target makes the same tensors again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from gpu.export import ExportError, carried, externalise
from gpu.weights import RECIPE, SUFFIX, fill, read_recipe, tensors_of, write_recipe
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exports.registry import FAMILY
from exports.weights import Networks, random_networks

CONVOLUTION, NORM = "encoder.layers.0.0.0", "encoder.layers.0.0.1"
PLAIN = "decoder.layers.16.out_conv"


@pytest.fixture(scope="module")
def networks() -> Networks:
    return random_networks(FAMILY["dedode-nano"], seed=3)


def folded(networks: Networks) -> dict[str, NDArray[np.float32]]:
    """What an exporter makes of two convolutions, one with its batch norm, by running them."""
    modules = dict(networks.detector.named_modules())
    convolution, norm = modules[CONVOLUTION], modules[NORM]
    with torch.no_grad():
        nothing = torch.zeros(1, 3, 9, 9)
        bias = norm(convolution(nothing))[0, :, 4, 4]
        columns = []
        for place in range(27):  # the weights of every output, one input at a time
            one = nothing.clone()
            channel, row, column = np.unravel_index(place, (3, 3, 3))
            one[0, channel, 3 + row, 3 + column] = 1  # the output at (2, 2) of stride 2 sees rows and columns 3 to 5
            columns.append(norm(convolution(one))[0, :, 2, 2] - bias)
        weight = torch.stack(columns, dim=1).reshape(-1, 3, 3, 3)
    plain = tensors_of(networks.detector)
    return {
        f"network.{CONVOLUTION}.weight": weight.numpy(),
        f"network.{CONVOLUTION}.bias": bias.numpy(),
        f"network.{PLAIN}.weight": plain[f"{PLAIN}.weight"].detach().numpy(),
        f"network.{PLAIN}.bias": plain[f"{PLAIN}.bias"].detach().numpy(),
    }


def written(path: Path, tensors: dict[str, NDArray[np.float32]], dtype: str) -> None:
    """An ONNX file with these initialisers; what it computes does not matter here."""
    initialisers = [numpy_helper.from_array(value.astype(dtype), name) for name, value in tensors.items()]
    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16
    first = next(iter(tensors))
    output = helper.make_tensor_value_info("out", kind, tensors[first].shape)
    graph = helper.make_graph([helper.make_node("Identity", [first], ["out"])], "g", [], [output], initialisers)
    onnx.save(helper.make_model(graph), path)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_filled_in_is_what_was_taken_out(tmp_path: Path, networks: Networks, dtype: str) -> None:
    path, tensors = tmp_path / "detector.onnx", folded(networks)
    written(path, tensors, dtype)
    before = path.stat().st_size
    plan = externalise(path, "detector", networks.detector, dtype=dtype)
    write_recipe(tmp_path, "random, seed 3", {path.name: plan})
    assert path.stat().st_size < before / 2
    assert {tensor.norm for tensor in plan.tensors} == {NORM, None}
    with pytest.raises(onnx.checker.ValidationError):
        onnx.load(path)  # its weights are not there
    assert fill(tmp_path, networks) == [tmp_path / f"detector{SUFFIX}"]
    assert fill(tmp_path, networks) == []  # they are, now
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    assert found.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert found[name].dtype == dtype
        np.testing.assert_allclose(
            found[name], expected, rtol=0, atol=np.abs(expected).max() * (1e-5, 2e-3)[dtype == "float16"]
        )


def test_damaged_weights_are_made_again(tmp_path: Path, networks: Networks) -> None:
    path = tmp_path / "detector.onnx"
    written(path, folded(networks), "float32")
    write_recipe(tmp_path, "", {path.name: externalise(path, "detector", networks.detector, dtype="float32")})
    (data,) = fill(tmp_path, networks)
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    assert fill(tmp_path, networks) == [data]
    assert data.read_bytes() == whole
    assert {file.name for file in tmp_path.iterdir()} == {path.name, data.name, RECIPE}


def test_a_tensor_that_comes_from_elsewhere_is_refused(tmp_path: Path, networks: Networks) -> None:
    path, tensors = tmp_path / "detector.onnx", folded(networks)
    tensors[f"network.{PLAIN}.weight"] = tensors[f"network.{PLAIN}.weight"] * 1.1
    written(path, tensors, "float32")
    with pytest.raises(ExportError, match=f"{PLAIN}.weight"):
        externalise(path, "detector", networks.detector, dtype="float32")


def test_networks_of_another_form_are_refused(tmp_path: Path, networks: Networks) -> None:
    path = tmp_path / "detector.onnx"
    written(path, folded(networks), "float32")
    write_recipe(tmp_path, "", {path.name: externalise(path, "detector", networks.detector, dtype="float32")})
    other = random_networks(FAMILY["dedode-l-b"])
    with pytest.raises((KeyError, ValueError)):
        fill(tmp_path, other)
    assert read_recipe(tmp_path).keys() == {path.name}
    assert not list(tmp_path.glob(f"*{SUFFIX}"))


def test_checkpoints_are_carried_in_half_but_for_what_overflows(networks: Networks) -> None:
    state = networks.descriptor.state_dict()
    variance = next(key for key in state if key.endswith("running_var"))
    state[variance] = torch.full_like(state[variance], 1e6)
    found = {key: carried(key, value) for key, value in state.items()}
    assert all(value.isfinite().all() for value in found.values())
    assert {value.dtype for key, value in found.items() if "running_" in key} == {torch.float32}
    assert next(iter(found.values())).dtype == torch.float16
