"""`model.toml`: what it may say, and one clear line for what it may not."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sfm_match.errors import NothingDone, UsageError
from sfm_match.models import match_defaults, recorded_match_defaults
from sfm_match.models.described import FILE, described_model, read_description

MINIMAL = {
    "file": "tiny.onnx",
    "dimension": 4,
    "match_threshold": 0.1,
    "coordinates": "pixels",
    "first_pixel": 0.5,
}
OUTPUTS = {"keypoints": (5, 2), "scores": (5,), "descriptors": (5, 4)}


def written(folder: Path, fields: dict[str, Any]) -> Path:
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    (folder / FILE).write_text("".join(lines), encoding="utf-8")
    return folder


def constant_file(path: Path, image: tuple[Any, ...] = ("B", 3, "H", "W"), kind: int = TensorProto.FLOAT) -> None:
    """Takes an image and gives constants."""
    inputs = [helper.make_tensor_value_info("image", kind, image)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, *shape)) for name, shape in OUTPUTS.items()]
    nodes = [
        helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.ones((1, *shape), np.float32)))
        for name, shape in OUTPUTS.items()
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    constant_file(tmp_path / "tiny.onnx")
    return written(tmp_path, MINIMAL)


def test_defaults_are_a_plain_rgb_image(folder: Path) -> None:
    found = described_model(folder)
    assert found.description.input == "image"
    assert (found.description.mean, found.description.std, found.description.depth) == ((0.0,), (1.0,), 3)
    assert found.divisor == 1
    assert not found.single
    assert found.path == folder / "tiny.onnx"


def test_every_field(folder: Path) -> None:
    constant_file(folder / "other.onnx", (1, 1, "H", "W"))
    every = {
        **MINIMAL,
        "file": "other.onnx",
        "inverse_temperature": 30,
        "input": "image",
        "channels": "gray",
        "mean": [0.5],
        "std": 0.25,
        "divisor": 8,
        "keypoints": "keypoints",
        "scores": "scores",
        "descriptors": "descriptors",
        "coordinates": "normalised",
        "first_pixel": 0,
    }
    found = described_model(written(folder, every))
    assert found.single
    assert found.description.as_json() == {**every, "std": [0.25]}
    assert set(every) == {*MINIMAL, *found.description.as_json()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"divisors": 8}, r"unknown field 'divisors' \(did you mean 'divisor'\?\)"),
        ({"file": None, "dimension": None}, "file, dimension missing"),
        ({"dimension": "4"}, "dimension: expected int, found '4'"),
        ({"file": 4}, "file: expected str, found 4"),
        ({"mean": ["a"]}, "mean: expected float, found 'a'"),
        ({"mean": [0.1, 0.2]}, "mean: must have 1 or 3 values, has 2"),
        ({"std": [1.0, 0.0, 1.0]}, "std: must be above 0"),
        ({"divisor": 0}, "divisor = 0: must be at least 1"),
        ({"coordinates": "pixel"}, "coordinates = 'pixel': must be 'pixels' or 'normalised'"),
        ({"first_pixel": 1}, "first_pixel = 1.0: must be 0.0 or 0.5"),
        ({"channels": "rgba"}, "channels = 'rgba': must be 'rgb' or 'bgr' or 'gray'"),
        ({"match_threshold": 1.0}, "match_threshold = 1.0: must be above 0 and below 1"),
        ({"inverse_temperature": 50}, "inverse_temperature = 50.0: must be above 0 and at most 40"),
        ({"input": "imag"}, r"input = 'imag': the inputs of tiny.onnx are image \(did you mean 'image'\?\)"),
        ({"scores": "score"}, "scores = 'score': the outputs of tiny.onnx are keypoints, scores, descriptors"),
        ({"channels": "gray"}, r"tiny.onnx takes \(B, 3, H, W\): must take \(B, 1, H, W\) of any height and width"),
        ({"file": "../tiny.onnx"}, "file = ../tiny.onnx: must be the name of a file in the same folder"),
        ({"divisor": 10**20}, "divisor = 1.*: must be at least 1 and at most 4,096"),
        ({"mean": [10**400]}, "mean: expected a number below 1e308"),
        ({"file": "absent.onnx"}, "file = 'absent.onnx': no such file"),
    ],
)
def test_a_wrong_field_is_one_line(folder: Path, change: dict[str, Any], message: str) -> None:
    fields = {name: value for name, value in {**MINIMAL, **change}.items() if value is not None}
    with pytest.raises((UsageError, NothingDone), match=message) as caught:
        described_model(written(folder, fields))
    assert str(caught.value).startswith(str(folder / FILE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (("B", 3, 480, 640), TensorProto.FLOAT, r"takes \(B, 3, 480, 640\): must take"),
        ((4, 3, "H", "W"), TensorProto.FLOAT, "takes 4 images: must take any number, or 1"),
        (("B", 3, "H", "W"), TensorProto.UINT8, r"takes a tensor\(uint8\): must take float32"),
    ],
)
def test_a_file_that_takes_something_else(folder: Path, shape: tuple[Any, ...], kind: int, message: str) -> None:
    constant_file(folder / "tiny.onnx", shape, kind)
    with pytest.raises(UsageError, match=message):
        described_model(folder)


def test_no_description_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no model\.toml"):
        read_description(tmp_path)
    (tmp_path / FILE).write_text("file = \n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"{re.escape(str(tmp_path / FILE))}: Invalid value"):
        read_description(tmp_path)


def test_a_file_that_is_no_onnx(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(b"not a network")
    with pytest.raises(NothingDone, match=r"tiny\.onnx: ONNX Runtime cannot load it"):
        described_model(folder)


def test_results_are_told_apart_by_the_file_its_weights_and_the_description(folder: Path) -> None:
    (folder / "tiny.onnx.data").write_bytes(b"1")
    before = described_model(folder).inputs()
    assert before == json.loads(json.dumps(before))  # as the record of a workspace gives it back
    (folder / "README.md").write_text("nothing to do with it")
    assert described_model(folder).inputs() == before
    (folder / "tiny.onnx.data").write_bytes(b"2")
    weights = described_model(folder).inputs()
    written(folder, {**MINIMAL, "divisor": 2})
    described = described_model(folder).inputs()
    assert before != weights != described


def test_how_features_are_matched_is_known_without_the_folder(folder: Path) -> None:
    by_folder = match_defaults(str(folder))
    assert (by_folder.threshold, by_folder.inverse_temperature, by_folder.dimension) == (0.1, 20.0, 4)
    recorded = json.loads(json.dumps(described_model(folder).inputs()))
    assert recorded_match_defaults(recorded) == by_folder
    assert recorded_match_defaults({"model": "dedode-l-b"}) == match_defaults("dedode-l-b")
    with pytest.raises(UsageError, match=r"accepted are dedode-nano.*, or a folder with an ONNX file"):
        match_defaults(str(folder / "absent"))
