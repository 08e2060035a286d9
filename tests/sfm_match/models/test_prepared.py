"""Checkpoints become the files that the pipeline runs: once, checked, and never half."""

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import sfm_match as command

import sfm_match
from exports.config import FAMILY
from exports.family import random_networks
from exports.keypoints import Detect
from exports.networks import Describe
from sfm_match.config import ExtractOptions
from sfm_match.errors import NothingDone, UsageError
from sfm_match.frames import Frame
from sfm_match.loader import Item, Loaded
from sfm_match.models import Weights, find_model, match_threshold
from sfm_match.progress import Clock
from sfm_match.stages.extract import Network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights; what is converted in it stands for the tests that follow."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> tuple[Path, ...]:
    networks = random_networks(FAMILY["dedode-nano"], seed=3)
    files = (folder / "detector.pth", folder / "descriptor.pth")
    for file, network in zip(files, (networks.detector, networks.descriptor), strict=True):
        torch.save(network.state_dict(), file)
    return files


def test_converted_once(
    checkpoints: tuple[Path, ...], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(checkpoints, folder)
    first = find_model("dedode-nano", weights)
    assert "converting its weights to ONNX, once" in capsys.readouterr().err
    assert json.loads((first.detector.parent / "manifest.json").read_text())["weights"].keys() == {
        "detector.pth",
        "descriptor.pth",
    }
    monkeypatch.setattr("exports.command.export_pipeline", None)  # not needed any more
    assert find_model("dedode-nano", weights) == first
    assert not list((folder / "onnx").glob("*.tmp-*"))
    monkeypatch.undo()
    other = find_model("dedode-nano", Weights(folder=folder, random=True))
    assert "RANDOM WEIGHTS" in capsys.readouterr().err
    assert other.facts() != first.facts() != find_model("dedode-nano").facts()


def test_a_conversion_cut_short_leaves_nothing(
    checkpoints: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_name: str, detector: Path, *_: Any, **__: Any) -> None:
        detector.parent.mkdir()
        detector.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("exports.command.export_pipeline", half)
    with pytest.raises(KeyboardInterrupt):
        find_model("dedode-nano", Weights(checkpoints, tmp_path))
    assert not list((tmp_path / "onnx").iterdir())


def test_without_torch_the_message_says_what_to_install(
    checkpoints: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "exports.command":
            raise ImportError("No module named 'torch'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(NothingDone, match=r"pip install 'sfm-match\[export\]'"):
        find_model("dedode-nano", Weights(checkpoints, tmp_path))


def test_a_file_that_failed_its_check_is_refused(checkpoints: tuple[Path, ...], folder: Path) -> None:
    weights = Weights(checkpoints, folder)
    record = find_model("dedode-nano", weights).descriptor.with_suffix(".parity.json")
    text = record.read_text()
    record.write_text(text.replace('"passed": true', '"passed": false'))
    with pytest.raises(NothingDone, match="failed its parity check"):
        find_model("dedode-nano", weights)
    record.write_text(text)


def test_refusals(checkpoints: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="accepted are dedode-nano"):
        find_model("dedode-nana")
    with pytest.raises(UsageError, match="accepted are --weights"):
        Weights(checkpoints, random=True)
    with pytest.raises(NothingDone, match="absent; run `sfm-match models download dedode-l-g`"):
        find_model("dedode-l-g", Weights(folder=tmp_path))
    with pytest.raises(NothingDone, match="no such file"):
        find_model("dedode-l-b", Weights((tmp_path / "absent.pth",), tmp_path))
    with pytest.raises(UsageError, match=r"no weights for descriptor"):
        find_model("dedode-nano", Weights(checkpoints[:1], tmp_path))
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint")
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        find_model("dedode-nano", Weights((text,), tmp_path))
    assert match_threshold("dedode-l-b") == 0.01


def test_published_networks_give_the_published_features(tmp_path: Path) -> None:
    """L-B through the pipeline's own path, against the exported form in torch, which is tested against kornia."""
    model = find_model("dedode-l-b", Weights(folder=tmp_path, random=True))
    networks = random_networks(FAMILY["dedode-l-b"])
    image = np.random.default_rng(0).normal(size=(1, 3, 96, 128)).astype(np.float32)
    frame = Frame((128, 96), 1, (128, 96), (128, 96))
    options = ExtractOptions(model="dedode-l-b", max_keypoints=400, border=0, subpixel=False)
    batch = Loaded([Item("a", frame)], image, [None], {}, set())
    found = Network(model, options).features(batch, Clock())["a"]
    assert not isinstance(found, str)
    with torch.no_grad():
        keypoints, scores = Detect(networks.detector, 400)(torch.from_numpy(image))
        descriptors = Describe(networks.descriptor)(torch.from_numpy(image), keypoints)[0].numpy()
    expected = ((keypoints[0].numpy() + 1) / 2 * (128, 96)).round(2)
    rows = {tuple(place): row for row, place in enumerate(expected.tolist())}
    same = [(i, rows[place]) for i, place in enumerate(map(tuple, found.keypoints.round(2).tolist())) if place in rows]
    assert len(same) >= 398  # the last in rank may change places by rounding
    ours, theirs = np.array(same).T
    np.testing.assert_allclose(found.scores[ours], scores[0].numpy()[theirs], rtol=1e-3)
    assert (found.descriptors[ours].astype(np.float32) * descriptors[theirs]).sum(axis=1).min() > 0.9999

    refined = Network(model, ExtractOptions(model="dedode-l-b", max_keypoints=400)).features(batch, Clock())["a"]
    assert not isinstance(refined, str)
    apart = np.linalg.norm(refined.keypoints[:, None] - refined.keypoints[None], axis=-1) + 9 * np.eye(400)
    assert np.median(apart.min(axis=1)) > 1.0  # neighbours do not collapse onto one place


def test_the_whole_job_on_checkpoints(
    rendered: Path, checkpoints: tuple[Path, ...], folder: Path, tmp_path: Path
) -> None:
    options = ["--images", rendered, "--workspace", tmp_path / "job", "--size", "320", "--max-keypoints", "200"]
    weights = ["--weights", ",".join(map(str, checkpoints)), "--weights-dir", folder]
    done = command("run", *options, *weights, "--mapper", "none")
    assert done.returncode == 0, done.stderr
    assert "everything stands" in command("run", *options, *weights, "--mapper", "none").stdout
    mixed = command("run", *options, "--mapper", "none")
    assert mixed.returncode == 2
    assert "extract ran with other options (descriptor.onnx was None" in mixed.stderr


def test_end_to_end(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path))
    pair = (rendered / "view05.jpg", rendered / "view06.jpg")
    options = {"random_weights": True, "size": 320, "max_keypoints": 300}
    found = sfm_match.infer(*pair, end2end=True, **options)
    assert found.keypoints == (300, 300)
    assert len(list((tmp_path / "onnx").glob("*/*end2end*.onnx"))) == 1
    with pytest.raises(UsageError, match=r"accepted are --match-threshold 0\.1 and more"):
        sfm_match.infer(*pair, end2end=True, match_threshold=0.01, **options)
