"""Any extractor as an ONNX file: where its keypoints are, what it is fed with, and that settings never mix."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Shared
from jobs import sfm_match as command
from torch import Tensor, nn

import sfm_match
from exports.onnx_export import export_module
from sfm_match.errors import UsageError
from sfm_match.features.extractor import NOT_FINITE, extractor_of, in_halves
from sfm_match.features.onnx_extractor import OnnxExtractor, chosen_model
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import Item, Loaded
from sfm_match.job.progress import Clock
from sfm_match.models.described import FILE
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime import EngineError, OutOfMemory
from sfm_match.store.features import Features

COUNT = 6  # rows of an image
FIELDS: dict[str, Any] = {
    "file": "brightest.onnx",
    "dimension": 3,
    "match_threshold": 0.3,
    "inverse_temperature": 10.0,
    "divisor": 8,
    "keypoints": "pixels_from_half",
    "coordinates": "pixels",
    "first_pixel": 0.5,
}
# every convention, and the output that keeps to it
CONVENTIONS = [
    ("pixels_from_half", "pixels", 0.5),
    ("pixels_from_0", "pixels", 0.0),
    ("edge_to_edge", "normalised", 0.5),
    ("centre_to_centre", "normalised", 0.0),
]


class Brightest(nn.Module):
    """The brightest pixels; a descriptor is what the network was fed with there, thrice as long."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        height, width = image.shape[2], image.shape[3]
        scores, places = image.sum(dim=1).flatten(1).topk(COUNT)
        rows = places // width
        pixels = torch.stack((places - rows * width, rows), dim=-1).float()
        seen = image.flatten(2).gather(2, places[:, None].expand(-1, image.shape[1], -1)).transpose(1, 2)
        size = torch.stack([torch.scalar_tensor(side, dtype=torch.float32) for side in (width, height)])
        edges, centres = (pixels + 0.5) / size * 2 - 1, pixels / (size - 1) * 2 - 1
        return pixels + 0.5, pixels + 0.0, edges, centres, scores, 3 * seen


@pytest.fixture(scope="session")
def exported(shared: Shared) -> Path:
    def make(folder: Path) -> None:
        names = [*(name for name, *_ in CONVENTIONS), "scores", "descriptors"]
        free = {"image": {0: "batch", 2: "height", 3: "width"}}
        export_module(Brightest(), {"image": torch.rand(2, 3, 32, 48)}, free, names, folder / "brightest.onnx")

    return shared("brightest", make)


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of the model with other fields."""

    def write(**fields: Any) -> Path:
        folder = tmp_path / "brightest"
        folder.mkdir(exist_ok=True)
        if not (folder / "brightest.onnx").exists():
            (folder / "brightest.onnx").symlink_to(exported / "brightest.onnx")
        lines = (f"{name} = {json.dumps(value)}\n" for name, value in (FIELDS | fields).items())
        (folder / FILE).write_text("".join(lines), encoding="utf-8")
        return folder

    return write


def loaded(dots: dict[tuple[int, int], tuple[int, int, int]], mask: np.ndarray | None = None) -> Loaded:
    """A black image of 40 x 24 pixels, enlarged from 20 x 12 and padded to 48 x 24, with pixels (x, y) of a colour."""
    image = np.zeros((1, 24, 48, 3), np.uint8)
    for (x, y), colour in dots.items():
        image[0, y, x] = colour
    geometry = ImageGeometry((20, 12), 1, (40, 24), (48, 24))
    return Loaded([Item("a.png", geometry)], image, [mask], {}, set())


def extracted(folder: Path, batch: Loaded, **options: Any) -> Features | str:
    chosen = ExtractOptions(model=str(folder), border=0, **options)
    extractor = OnnxExtractor(chosen_model(chosen), chosen, {batch.items[0].geometry.bucket: 1})
    ((_, found),) = extractor.each([batch], Clock())
    return found["a.png"]


@pytest.mark.parametrize(("output", "coordinates", "first_pixel"), CONVENTIONS)
def test_a_dot_is_where_it_is(model: Callable[..., Path], output: str, coordinates: str, first_pixel: float) -> None:
    folder = model(keypoints=output, coordinates=coordinates, first_pixel=first_pixel)
    found = extracted(folder, loaded({(10, 7): (250, 0, 0), (39, 23): (90, 90, 90), (0, 0): (0, 99, 0)}))
    assert isinstance(found, Features)
    # two network pixels are one raw pixel
    expected = [[19.75, 11.75], [5.25, 3.75], [0.25, 0.25]]
    np.testing.assert_allclose(found.keypoints, expected, atol=1e-5)
    np.testing.assert_allclose(found.scores, np.array([270, 250, 99]) / 255, rtol=1e-6)  # black pixels are no keypoints
    expected = [[3**-0.5] * 3, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(found.descriptors.astype(np.float32), expected, atol=1e-3)


def test_border_mask_padding_threshold_and_count(model: Callable[..., Path]) -> None:
    mask = np.full((24, 40), 255, np.uint8)
    mask[:, :10] = 0
    white = (255, 255, 255)
    # in the padding, masked, at the border, weak
    batch = loaded({(44, 5): white, (5, 5): white, (20, 1): white, (20, 20): (60, 0, 0), (30, 9): white}, mask)
    found = extracted(model(), batch, detection_threshold=0.5)
    assert isinstance(found, Features)
    assert found.keypoints.tolist() == [[10.25, 0.75], [15.25, 4.75]]
    found = extracted(model(), batch, detection_threshold=0.5, max_keypoints=1)
    assert isinstance(found, Features)
    assert found.keypoints.tolist() == [[10.25, 0.75]]
    chosen = ExtractOptions(model=str(model()), border=2)
    extractor = extractor_of(chosen.model).create(chosen_model(chosen), chosen, {(48, 24): 1})
    ((_, whole),) = extractor.each([batch], Clock())
    assert isinstance(whole["a.png"], Features)
    assert whole["a.png"].keypoints.tolist() == [[15.25, 4.75], [10.25, 10.25]]
    assert extracted(model(), loaded({})) == "no keypoint found"


def test_channels_mean_and_deviation(model: Callable[..., Path]) -> None:
    batch = loaded({(10, 7): (51, 102, 204)})
    found = extracted(model(channels="bgr", mean=[0.0, 0.1, 0.0], std=[1.0, 0.5, 2.0]), batch)
    assert isinstance(found, Features)
    fed = np.array([0.8, (0.4 - 0.1) / 0.5, 0.2 / 2])
    np.testing.assert_allclose(found.scores[0], fed.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.descriptors[0], fed / np.linalg.norm(fed), atol=1e-3)


def test_outputs_of_other_shapes(model: Callable[..., Path]) -> None:
    folder = model(dimension=4)
    with pytest.raises(EngineError, match=r"model\.toml: keypoints .*descriptors \(1, 6, 3\): must be .*\(B, K, 4\)"):
        extracted(folder, loaded({(1, 1): (9, 9, 9)}))


def test_values_that_are_not_finite(model: Callable[..., Path]) -> None:
    """Sums beyond float32."""
    assert extracted(model(mean=-3e38), loaded({})) == NOT_FINITE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turns": True}, "--turns must keep its default"),
        ({"precision": "fp32"}, "--precision must keep its default"),
        ({"weights": "a.pth"}, "--weights must keep its default"),
        ({"device": "torch"}, "torch runs no ONNX file"),
    ],
)
def test_what_the_file_settles(model: Callable[..., Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_model(ExtractOptions(model=str(model()), **options))


def test_memory_that_is_short_halves_the_batch() -> None:
    one = loaded({})
    batch = replace(one, items=one.items * 5, images=one.images.repeat(5, axis=0), masks=[None] * 5)
    tried = []

    def features(part: Loaded) -> dict[str, Features | str]:
        tried.append(len(part.items))
        if len(part.items) > 2:
            raise OutOfMemory("no memory")
        return {str(len(tried)): "done"}

    assert list(in_halves(batch, features)) == ["2", "4", "5"]
    assert tried == [5, 2, 3, 1, 2]
    assert in_halves(batch.rows([]), features) == {}


def test_a_job_and_its_fingerprint(model: Callable[..., Path], rendered: Path, tmp_path: Path) -> None:
    """Features and matches of the command line; matching needs no folder; another description is refused."""
    folder, work = model(), tmp_path / "work"
    job = ("--images", rendered, "--workspace", work, "--size", 320)
    done = command("extract", *job, "--model", folder, "--batch", 4)
    assert done.returncode == 0, done.stderr
    assert "brightest.onnx" in done.stdout
    assert (counts := sfm_match.open(work).feature_set.counts)
    assert max(counts.values()) <= COUNT
    sfm_match.pairs(work, strategy="exhaustive")
    moved = folder.rename(tmp_path / "moved")
    sfm_match.match(work)
    record = json.loads((work / "sfm-match.json").read_text())
    assert (record["match"]["match_threshold"], record["match"]["inverse_temperature"]) == (0.3, 10.0)
    again = command("extract", *job, "--model", moved)  # it is the content that counts
    assert f"{len(counts)} images" in again.stdout and again.returncode == 0, again.stderr
    model(mean=0.25)
    other = command("extract", *job, "--model", folder)
    assert other.returncode == 2
    assert "extract ran with other options (description was" in other.stderr


def test_infer_takes_a_folder(model: Callable[..., Path], rendered: Path) -> None:
    a, b, *_ = sorted(rendered.iterdir())
    found = sfm_match.infer(a, b, model=str(model()), size=320)
    assert found.keypoints[0] <= COUNT
