"""Checkpoints become the files that the pipeline runs: once, checked, and never half."""

import builtins
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from epipolar import epipolar_distance
from jobs import sfm_match as command
from PIL import Image
from tiny import TINY

import sfm_match
from exports.keypoints import Detect
from exports.networks import Describe
from exports.onnx_export import Shapes
from exports.registry import FAMILY
from exports.weights import load_networks, random_networks
from sfm_match.errors import NothingDone, UsageError
from sfm_match.features.dedode import DeDoDeExtractor
from sfm_match.images.coordinates import ImageGeometry
from sfm_match.images.loader import Item, Loaded, normalise
from sfm_match.job.progress import Clock
from sfm_match.models import BUILT_IN, Weights, find_model, match_defaults
from sfm_match.models.prepared import _sweep, say_random, sources
from sfm_match.models.prepared import checkpoints as checkpoints_of
from sfm_match.options.stages import ExtractOptions
from sfm_match.store.shard import fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights; what is converted in it stands for the tests that follow."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def made(folder: Path) -> tuple[Path, ...]:
    networks = random_networks(TINY, seed=3)
    files = (folder / "detector.pth", folder / "descriptor.pth")
    for file, network in zip(files, (networks.detector, networks.descriptor), strict=True):
        torch.save(network.state_dict(), file)
    return files


@pytest.fixture
def checkpoints(made: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """Of a tiny network that takes nano's place in the family."""
    monkeypatch.setitem(FAMILY, "dedode-nano", TINY)
    return made


def test_converted_once(
    checkpoints: tuple[Path, ...],
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = Weights(checkpoints, folder)
    first = find_model("dedode-nano", weights)
    assert "converting its weights to ONNX, once" in caplog.text
    assert json.loads((first.detector.parent / "manifest.json").read_text())["model"] == "dedode-nano"
    with monkeypatch.context() as patch:
        patch.setattr("exports.command.export_pipeline", None)  # not needed any more
        assert find_model("dedode-nano", weights) == first
    assert not list((folder / "onnx").glob("*.tmp-*"))
    monkeypatch.setattr("exports.command.export_pipeline", export_nothing)
    say_random.cache_clear()  # another test may have heard it
    other = find_model("dedode-nano", Weights(folder=tmp_path, random=True))
    assert "RANDOM WEIGHTS" in caplog.text
    assert other.inputs() != first.inputs() != find_model("dedode-nano").inputs()


def export_nothing(_name: str, detector: Path, descriptor: Path, **_: Any) -> list[Any]:
    """Empty files in place of networks."""
    detector.parent.mkdir()
    for path in (detector, descriptor):
        path.write_bytes(b"")
    return []


def test_files_of_another_form_are_made_anew(
    checkpoints: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only those: each precision has its own."""
    made: list[bool] = []

    def empty(*arguments: Any, half: bool, **options: Any) -> list[Any]:
        made.append(half)
        return export_nothing(*arguments, **options)

    monkeypatch.setattr("exports.command.export_pipeline", empty)
    single, half = (find_model("dedode-nano", Weights(checkpoints, tmp_path), half=half) for half in (False, True))
    source = sources("dedode-nano", Weights(checkpoints))[1]
    assert single.detector.parent.name == f"dedode-nano-{fingerprint([source, 'pipeline', 2])}"
    assert half.detector.parent.name == f"dedode-nano-{fingerprint([source, 'pipeline fp16', 3])}"
    assert (single.source["form"], half.source["form"]) == ("2", "3")
    assert made == [False, True]


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
    with pytest.raises(UsageError, match=r"dedode-nano-v2: earlier weights, .* history .*; accepted is dedode-nano,"):
        find_model("dedode-nano-v2")
    with pytest.raises(UsageError, match="--random-weights cannot be joined with --weights"):
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
    assert match_defaults("dedode-l-b").threshold == 0.01


@pytest.mark.parametrize("tiny", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tiny", "l-b"])
def test_published_networks_give_the_published_features(
    tiny: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-B through the pipeline's own path, against the exported form in torch, which is tested against kornia."""
    if tiny:
        long = replace(TINY.descriptor, prototypes=256)  # what half precision rounds away averages out
        small = replace(FAMILY["dedode-l-b"], detector=TINY.detector, descriptor=long)
        monkeypatch.setitem(FAMILY, "dedode-l-b", small)
        monkeypatch.setattr("exports.command.padded_size", lambda *_: Shapes((96, 128)))  # free ones take far longer
    model = find_model("dedode-l-b", Weights(folder=tmp_path, random=True))
    networks = random_networks(FAMILY["dedode-l-b"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), np.uint8)
    image = normalise(pixels[0])[None]
    frame = ImageGeometry((128, 96), 1, (128, 96), (128, 96))
    options = ExtractOptions(model="dedode-l-b", max_keypoints=400, border=0, subpixel=False)
    batch = Loaded([Item("a", frame)], pixels, [None], {}, set())
    buckets = Counter({(128, 96): 1})
    found = DeDoDeExtractor(model, options, buckets).features(batch, Clock())["a"]
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

    plain = ExtractOptions(model="dedode-l-b", max_keypoints=400)
    refined = DeDoDeExtractor(model, plain, buckets).features(batch, Clock())["a"]
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
    assert "up to date: " in command("run", *options, *weights, "--mapper", "none").stdout
    mixed = command("run", *options, "--mapper", "none")
    assert mixed.returncode == 2
    assert "extract ran with other options (descriptor.onnx was none" in mixed.stderr


def test_packaged_checkpoints_are_there_for_those_who_export() -> None:
    for name in BUILT_IN:
        networks = load_networks(FAMILY[name], checkpoints_of(name, None))
        assert networks.detector.config == FAMILY[name].detector


def test_weights_are_told_apart_by_content_not_by_name(tmp_path: Path) -> None:
    for run, seed in (("a", 1), ("b", 2)):
        networks = random_networks(FAMILY["dedode-nano"], seed=seed)
        for part in ("detector", "descriptor"):
            (tmp_path / run / part).mkdir(parents=True)
            torch.save(getattr(networks, part).state_dict(), tmp_path / run / part / "best.pth")

    def source(detector: str, descriptor: str) -> dict[str, str]:
        files = (tmp_path / detector / "detector" / "best.pth", tmp_path / descriptor / "descriptor" / "best.pth")
        return sources("dedode-nano", Weights(files))[1]

    every = [source(a, b) for a in "ab" for b in "ab"]
    assert len({str(found) for found in every}) == 4
    renamed = tmp_path / "detector.pth"
    renamed.write_bytes((tmp_path / "a" / "detector" / "best.pth").read_bytes())
    again = sources("dedode-nano", Weights((tmp_path / "a" / "descriptor" / "best.pth", renamed)))[1]
    assert again == source("a", "a")


def test_what_a_killed_conversion_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "x.tmp-1", tmp_path / "x.tmp-2"
    old.mkdir()
    new.mkdir()
    os.utime(old, (0, 0))
    _sweep(tmp_path)
    assert not old.exists()
    assert new.exists()


def test_what_the_file_from_images_to_matches_does_not_take(rendered: Path) -> None:
    a, b = rendered / "view05.jpg", rendered / "view06.jpg"
    with pytest.raises(UsageError, match=r"accepted are --match-threshold 0\.\d+ and more"):
        sfm_match.infer(a, b, end2end=True, match_threshold=0.001)
    with pytest.raises(UsageError, match="takes no --turns"):
        sfm_match.infer(a, b, end2end=True, turns=True)


@pytest.mark.slow
def test_end_to_end(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged model on pictures of different EXIF orientations: raw coordinates on the true epipolar lines."""
    monkeypatch.setenv("SFM_MATCH_WEIGHTS", str(tmp_path))
    a, b = rendered / "view05.jpg", tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise: stored the other way
    Image.open(rendered / "view06.jpg").transpose(Image.Transpose.ROTATE_90).save(b, exif=exif, quality=95)
    found = sfm_match.infer(a, b, end2end=True, size=480, max_keypoints=800)
    assert found.keypoints == (800, 800)
    assert found.inliers.sum() > 100
    upright = np.stack((960 - found.points_b[:, 1], found.points_b[:, 0]), axis=1)
    assert np.median(epipolar_distance(found.points_a, upright, 5, 6)[found.inliers]) < 1.5
    assert len(list((tmp_path / "onnx").glob("*/*end2end*.onnx"))) == 1
    sfm_match.infer(b, a, end2end=True, size=640, max_keypoints=800)  # the same file
    assert len(list((tmp_path / "onnx").glob("*/*end2end*.onnx"))) == 1
