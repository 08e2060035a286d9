"""The weightless graphs of the package, as they are shipped: no value in them is ever undefined."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from exports.graph_constants import MASKED, NEVER, VALID
from exports.graphs import MatchBlock, StoredDescriptors
from sfm_match.matching.on_device import packed
from sfm_match.runtime import GRAPHS

SELECTIONS = sorted(path.name for path in GRAPHS.glob("select_*_2048.onnx"))


def intermediates(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every value that a network makes, of a floating-point type, without the optimiser's rewriting."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    known = {output.name for output in model.graph.output}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for value in model.graph.value_info:
        if value.name not in known and value.type.tensor_type.elem_type in floats:
            model.graph.output.append(value)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    assert len(found) > len(known)
    return {name: value for name, value in found.items() if value.dtype.kind == "f"}


def unit(count: int, dimension: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("temperature", [1.0, 20.0, 40.0])
def test_matching_with_padding_is_defined_everywhere(temperature: float) -> None:
    """One NaN in a column is the maximum of every row on CUDA: the whole pair would be lost."""
    block = packed([unit(5, 24, 0), unit(7, 24, 1), unit(0, 24, 2)], 16)
    feeds: dict[str, np.ndarray] = {"descriptors": block, "pairs": np.array([[0, 1], [1, 0], [0, 2], [2, 2]], np.int64)}
    feeds["inverse_temperature"] = np.array([temperature], np.float32)
    found = intermediates(GRAPHS / "match.onnx", feeds)
    assert [name for name, value in found.items() if np.isnan(value).any()] == []
    assert (found["scores"] >= 0).all()
    assert not found["scores"][:, 7:].any()
    assert not found["scores"][2:].any()
    module = MatchBlock()(*(torch.from_numpy(feeds[name]) for name in ("descriptors", "pairs", "inverse_temperature")))
    np.testing.assert_allclose(found["scores"], module[1].numpy(), atol=1e-6)


def test_equal_descriptors_match_once() -> None:
    """A mutual maximum is a matter of places: with two equal rows the first is taken, and nothing twice."""
    one = unit(3, 24, 0)
    block = packed([np.concatenate((one, one)), one], 16)
    feeds = (torch.from_numpy(block), torch.tensor([[0, 1]]), torch.tensor([20.0]))
    places, scores = MatchBlock()(*feeds)
    rows = scores[0].nonzero()[:, 0].tolist()
    assert rows == [0, 1, 2]
    assert places[0, rows].tolist() == [0, 1, 2]


@pytest.mark.parametrize("file", SELECTIONS)
def test_selection_with_padding_and_masks_is_defined_everywhere(file: str) -> None:
    valid_mask = np.zeros((2, 64, 96), np.uint8)  # OUTSIDE
    valid_mask[0, :40, :50], valid_mask[1, :64, :90] = MASKED, MASKED
    valid_mask[0, 4:36, 4:46], valid_mask[1, 30:60, 4:86] = VALID, VALID
    logits = np.random.default_rng(0).normal(0, 4, (2, 1, 64, 96)).astype(np.float32)
    feeds: dict[str, np.ndarray] = {
        "logits": logits,
        "ground": valid_mask,
        "log_threshold": np.array([NEVER], np.float32),
    }
    feeds["least_contrast"] = np.array([0.25], np.float32)
    found = intermediates(GRAPHS / file, feeds)
    assert [name for name, value in found.items() if np.isnan(value).any()] == []


def test_matching_passes_over_the_matrix_nine_times() -> None:
    """What is fused is the engine's business; what is asked of it is a product and eight passes."""
    model = onnx.shape_inference.infer_shapes(onnx.load(GRAPHS / "match.onnx"))
    shapes = {
        value.name: [side.dim_param for side in value.type.tensor_type.shape.dim] for value in model.graph.value_info
    }
    matrix = ["pairs", "keypoints", "keypoints"]

    def touches(node: onnx.NodeProto) -> bool:
        return any(shapes.get(name) == matrix for name in (*node.input, *node.output))

    passes = [node.op_type for node in model.graph.node if touches(node) and node.op_type != "GatherElements"]
    assert sorted(passes) == sorted(["MatMul", "Mul", "Exp", *["ReduceSum"] * 2, *["Mul", "ArgMax"] * 2])


def test_descriptors_as_they_are_stored() -> None:
    """Half precision as numpy rounds it; a value that is not finite is told where it is a keypoint's, there alone."""
    descriptors = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=2, keepdims=True)
    descriptors[1, 2, 3], descriptors[2, 4, 0], descriptors[3, 5, 7] = np.nan, -np.inf, np.nan
    feeds: dict[str, np.ndarray] = {"descriptors": descriptors, "counts": np.array([6, 3, 5, 5], np.int64)}
    session = onnxruntime.InferenceSession(str(GRAPHS / "stored.onnx"), providers=["CPUExecutionProvider"])
    stored, described = session.run(["stored", "described"], feeds)
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, descriptors.astype(np.float16))
    assert described.tolist() == [1, 0, 0, 1]
    module = StoredDescriptors()(*map(torch.from_numpy, feeds.values()))
    np.testing.assert_array_equal(module[0].numpy(), stored)
    assert module[1].tolist() == described.tolist()
