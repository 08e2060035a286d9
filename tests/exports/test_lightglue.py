"""Our LightGlue and kornia's with the same weights: the same probabilities and matches, padded or not, and in ONNX."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from kornia.feature import LightGlue as Reference
from torch import Tensor

import exports.lightglue
from exports.lightglue import LightGlue, LightGlueBlock, load_lightglue, random_lightglue
from exports.lightglue_export import OUTPUTS, block, check_lightglue, export_lightglue, write_lightglue
from exports.weights import WeightsError

NONE: Any = None  # no published weights
COUNTS = (90, 70)  # keypoints of the two images
SIZES = ((640, 480), (500, 700))  # (width, height), pixels


def kornias(dimension: int) -> Any:
    """Without stopping early and dropping keypoints; seeded weights."""
    torch.manual_seed(0)
    chosen = {"input_dim": dimension, "depth_confidence": -1, "width_confidence": -1, "filter_threshold": 0.0}
    return Reference(NONE, **chosen).eval()


def checkpoint(reference: Any, file: Path) -> Path:
    torch.save(reference.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[LightGlue, Any]:
    """Ours and kornia's with the same weights, for descriptors of 256 values."""
    reference = kornias(256)
    return load_lightglue(checkpoint(reference, tmp_path_factory.mktemp("weights") / "w.pth")), reference


def images(dimension: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    """Two pairs; half the keypoints of the second images have one in the first that is alike."""
    generator = torch.Generator().manual_seed(1)
    found: list[dict[str, Tensor]] = []
    for count, size in zip(COUNTS, SIZES, strict=True):
        sides = torch.tensor([size] * 2, dtype=dtype)
        descriptors = torch.randn(2, count, dimension, generator=generator, dtype=dtype)
        if found:
            descriptors[:, : count // 2] = 5 * found[0]["descriptors"][:, : count // 2]
        keypoints = torch.rand(2, count, 2, generator=generator, dtype=dtype) * sides[:, None]
        descriptors = F.normalize(descriptors, dim=-1)
        found.append({"keypoints": keypoints, "descriptors": descriptors, "image_size": sides})
    return found


def centred(image: dict[str, Tensor]) -> Tensor:
    """Keypoints as ours takes them."""
    size = image["image_size"]
    return (image["keypoints"] - size[:, None] / 2) * 2 / size.amax(dim=1)[:, None, None]


def side(image: dict[str, Tensor], padding: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints, descriptors and counts of the images on one side, with rows of rubbish."""
    pad = (0, 0, 0, padding)
    counts = torch.full((len(image["keypoints"]),), image["keypoints"].shape[1])
    return F.pad(centred(image), pad, value=0.7), F.pad(image["descriptors"], pad, value=0.3), counts


@torch.no_grad()
def test_probabilities_equal_kornia(both: tuple[LightGlue, Any]) -> None:
    network, reference = both
    first, second = images(256)
    expected = reference({"image0": first, "image1": second})["log_assignment"][:, :-1, :-1]
    found = network(*side(first), *side(second))
    torch.testing.assert_close(found.exp(), expected.exp(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-5)


@torch.no_grad()
def test_logarithms_equal_kornia_in_double_precision(tmp_path: Path) -> None:
    """Of descriptors of another dimension, which are projected first."""
    reference = kornias(128)
    network = load_lightglue(checkpoint(reference, tmp_path / "w.pth")).double()
    first, second = images(128, torch.float64)
    expected = reference.double()({"image0": first, "image1": second})["log_assignment"][:, :-1, :-1]
    torch.testing.assert_close(network(*side(first), *side(second)), expected, atol=1e-10, rtol=0)


@torch.no_grad()
def test_padding_changes_nothing(both: tuple[LightGlue, Any]) -> None:
    network, _ = both
    first, second = images(256)
    alone = network(*side(first), *side(second))
    padded = network(*side(first, 30), *side(second, 70))
    torch.testing.assert_close(padded[:, : COUNTS[0], : COUNTS[1]], alone, atol=1e-4, rtol=0)
    assert padded[:, :, COUNTS[1] :].max() < -1e8


@torch.no_grad()
def test_matches_of_a_block_equal_kornia(both: tuple[LightGlue, Any]) -> None:
    """Pairs of images with different numbers of keypoints."""
    network, reference = LightGlueBlock(both[0]), both[1]
    pair = images(256)
    for image in pair:
        image["descriptors"] = image["descriptors"].half().float()
    padded = [side(image, max(COUNTS) - count) for image, count in zip(pair, COUNTS, strict=True)]
    keypoints, descriptors, counts = (torch.cat(parts) for parts in zip(*padded, strict=True))
    pairs = torch.tensor([[0, 2], [1, 3], [3, 1]])
    places, scores = network(keypoints, descriptors.half(), counts, pairs)
    expected = reference({"image0": pair[0], "image1": pair[1]})
    there, back = expected["matches0"], expected["matches1"]
    for row, (partners, sure) in enumerate(
        [(there[0], expected["matching_scores0"][0]), (there[1], None), (back[1], None)]
    ):
        matched = partners >= 0
        assert 20 < matched.sum() < len(partners)
        assert torch.equal(scores[row, : len(partners)] > 0, matched)
        assert torch.equal(places[row, : len(partners)][matched].long(), partners[matched])
        assert not scores[row, len(partners) :].any()
        if sure is not None:
            torch.testing.assert_close(scores[row, : len(sure)], sure, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_image_without_keypoints_has_no_matches(both: tuple[LightGlue, Any]) -> None:
    given = block(256, 2, 20)
    given["counts"][1] = 0
    _, scores = LightGlueBlock(both[0])(*given.values())
    assert torch.isfinite(scores).all()
    assert not scores[1].any()


def test_names_of_the_authors(both: tuple[LightGlue, Any], tmp_path: Path) -> None:
    reference, expected = both[1], both[0].state_dict()
    state = {}
    for name, value in reference.state_dict().items():
        parts = name.split(".")  # transformers.3.self_attn.Wqkv.weight -> self_attn.3.Wqkv.weight
        state[".".join([parts[2], parts[1], *parts[3:]]) if parts[0] == "transformers" else name] = value
    torch.save(state, tmp_path / "authors.pth")
    found = load_lightglue(tmp_path / "authors.pth").state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert found.keys() <= reference.state_dict().keys()


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: not a LightGlue of 9 layers .* first\)"):
        load_lightglue(tmp_path / "w.pth")
    wide = Reference(NONE, add_scale_ori=True)  # SIFT's
    with pytest.raises(WeightsError, match=r"\(1 tensors differ, posenc\.Wr\.weight first\)"):
        load_lightglue(checkpoint(wide, tmp_path / "wide.pth"))


@pytest.mark.slow
def test_the_gate_refuses_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports.lightglue, "LAYERS", 1)  # for speed
    network = random_lightglue(64)
    write_lightglue(network, tmp_path / "one.onnx")
    assert check_lightglue(tmp_path / "one.onnx", network, "random").passed
    assert not check_lightglue(tmp_path / "one.onnx", random_lightglue(64, seed=1), "random").passed


@pytest.mark.slow
def test_the_whole_network_in_onnx(tmp_path: Path) -> None:
    exported = export_lightglue(checkpoint(kornias(256), tmp_path / "w.pth"), tmp_path)
    assert exported.parity is not None
    assert exported.parity.passed
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    network: LightGlue = load_lightglue(tmp_path / "w.pth")
    for images, rows in ((2, 1), (4, 33)):
        given = block(256, images, rows)
        with torch.no_grad():
            _, expected = LightGlueBlock(network)(*given.values())
        found = session.run(list(OUTPUTS), {name: value.numpy() for name, value in given.items()})[1]
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)
