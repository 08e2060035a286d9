"""The training's geometry, its losses, and that a resumed run goes on where it stopped."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import plot_training
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import train_nano
from nano import losses, views
from nano.distillation import Teacher, divergence
from torch import nn

HARD_FROM = 2
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(3):
        small = rng.integers(0, 255, (30, 40, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.resize(small, (400, 300), interpolation=cv2.INTER_CUBIC))
    return folder


def batch(photographs: Path, step: int = 0) -> views.Views:
    photos = views.Photographs(views.find_photographs([photographs]))
    return views.make_batch(photos, 128, 4, 0, HARD_FROM, step)


def test_step_depends_on_the_seed_alone(photographs: Path) -> None:
    photos = views.Photographs(views.find_photographs([photographs]))
    several = [views.make_batch(photos, 128, 4, 0, HARD_FROM, step) for step in range(3)]
    torch.testing.assert_close(several[2].images, batch(photographs, step=2).images)
    assert not torch.equal(several[1].images, several[2].images)


def test_homography_joins_the_views(photographs: Path) -> None:
    """B warped to A by the homography looks like A, far more than B itself does."""
    pair = batch(photographs)
    seen = losses.overlap(pair)
    a, b = pair.images[:4].mean(1, keepdim=True), pair.images[4:].mean(1, keepdim=True)
    warped = F.grid_sample(b, seen.grid, align_corners=False)

    def correlation(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack((x.flatten()[mask], y.flatten()[mask])))[0, 1])

    joined = [correlation(a[i], warped[i], seen.mask[i]) for i in range(4)]
    apart = [correlation(a[i], b[i], seen.mask[i]) for i in range(4)]
    assert np.median(joined) > 0.8
    assert np.median(joined) > np.median(apart) + 0.3


def test_a_detector_that_agrees_costs_less(photographs: Path) -> None:
    pair = batch(photographs)
    seen = losses.overlap(pair)
    agreed = pair.corners[:, None] * 3
    disagreed = torch.cat((agreed[:4], agreed[4:].flip(-1)))
    costs = [float(losses.detector_loss(logits, pair, seen, prior=1.0)) for logits in (agreed, disagreed)]
    assert costs[0] < costs[1]


def test_repeatability_of_perfect_agreement_is_one(photographs: Path) -> None:
    pair = batch(photographs)
    identity = torch.eye(3).expand(4, 3, 3)
    same = views.Views(pair.images, identity, torch.ones_like(pair.valid), pair.corners, pair.clean)
    logits = torch.rand(4, 1, 128, 128).repeat(2, 1, 1, 1)
    assert losses.repeatability(logits, losses.overlap(same)) == (1.0, 1.0)


def test_swapped_views_swap_back(photographs: Path) -> None:
    pair = batch(photographs)
    twice = pair.swapped().swapped()
    torch.testing.assert_close(pair.swapped().images[:4], pair.images[4:])
    torch.testing.assert_close(twice.clean, pair.clean)
    torch.testing.assert_close(twice.b_from_a, pair.b_from_a, rtol=1e-3, atol=1e-3)


class Corners(nn.Module):
    """A detector that does not mind mirrors and shifts."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(images.mean(1, keepdim=True), 5, 1, 2)


def test_a_teacher_s_target_is_its_mean(photographs: Path) -> None:
    """Of a network that says the same of every mirror and shift, it is what the network says, blurred and scaled."""
    pair = batch(photographs)
    seen, back = losses.overlap(pair), losses.overlap(pair.swapped())
    alone = Teacher(Corners(), temperature=2.0, across=0.0).target(pair.clean, seen, back, np.random.default_rng(0))
    said = 2 * Corners()(pair.clean)
    torch.testing.assert_close(alone[..., 8:-8, 8:-8], said[..., 8:-8, 8:-8], atol=0.05, rtol=0)
    mixed = Teacher(Corners(), 2.0, across=1.0).target(pair.clean, seen, back, np.random.default_rng(0))
    warped = F.grid_sample(alone[4:], seen.grid, align_corners=False)
    mask = seen.mask.view(4, 1, 128, 128)
    torch.testing.assert_close(mixed[:4][mask], warped[mask])
    torch.testing.assert_close(mixed[:4][~mask], alone[:4][~mask])


def test_who_says_the_same_diverges_by_nothing(photographs: Path) -> None:
    pair = batch(photographs)
    target = pair.corners[:, None] * 3
    valid = torch.ones_like(pair.valid)
    for value in divergence(target + 7, target, valid):  # a softmax does not know a constant
        assert float(value) == pytest.approx(0, abs=1e-4)
    assert min(float(value) for value in divergence(target.flip(-1), target, valid)) > 0.1


def test_a_teacher_trains_the_detector_alone(photographs: Path, tmp_path: Path) -> None:
    teacher = ROOT / "sfm_match" / "models" / "dedode_nano"
    trained = train(photographs, tmp_path, 2, "--teacher", teacher)["nets"]
    before = safetensors.torch.load_file(teacher / "descriptor.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(trained[f"descriptor.{name}"], value, rtol=0, atol=0)
    detector = safetensors.torch.load_file(teacher / "detector.safetensors")
    assert any(not torch.equal(trained[f"detector.{name}"], value) for name, value in detector.items())


def script(module: Any, *arguments: object) -> None:
    """Runs a script in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()


TINY = ("--batch", 1, "--size", 128, "--every", 1, "--threads", 1)


def program(module: Any, *arguments: object) -> None:
    """Runs a script as users do."""
    command = [sys.executable, module.__file__, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts")))}
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, env=environment)


Run = Callable[..., None]


def train(photographs: Path, out: Path, steps: int, *more: object, run: Run = script) -> dict[str, Any]:
    run(train_nano, "--images", photographs, "--out", out, "--steps", steps, *TINY, *more)
    found: dict[str, Any] = torch.load(out / "checkpoint.pt", weights_only=True)
    return found


@pytest.mark.parametrize("run", [script, pytest.param(program, marks=pytest.mark.slow)])
def test_resuming_gives_what_an_undisturbed_run_gives(run: Run, photographs: Path, tmp_path: Path) -> None:
    whole = train(photographs, tmp_path / "whole", 4, run=run)
    train(photographs, tmp_path / "parts", 4, "--stop", 2, run=run)
    parts = train(photographs, tmp_path / "parts", 4, run=run)
    assert parts["step"] == whole["step"] == 4
    # batch norm's averages tell which images were seen in which order, the optimiser's count that it was restored;
    # weights follow only up to rounding, which the first steps of Adam blow up to the learning rate
    for name, value in whole["nets"].items():
        torch.testing.assert_close(parts["nets"][name], value, atol=1e-3, rtol=1e-3)
    assert all(int(state["step"]) == 4 for state in parts["optimiser"]["state"].values())


def test_validation_and_its_curves(photographs: Path, tmp_path: Path) -> None:
    sequence = tmp_path / "sequences" / "shift"
    sequence.mkdir(parents=True)
    picture = cv2.imread(str(next(photographs.iterdir())))
    assert picture is not None
    cv2.imwrite(str(sequence / "img1.png"), picture[:, :384])
    cv2.imwrite(str(sequence / "img2.png"), picture[:, 16:])
    (sequence / "H1to2p").write_text("1 0 -16\n0 1 0\n0 0 1\n")
    train(photographs, tmp_path / "out", 2, "--validate", sequence.parent, "--validate-every", 2)
    first, second = map(json.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
    assert "val_mma@3" not in first
    assert 0 <= second["val_mma@1"] <= second["val_mma@3"] <= second["val_mma@5"] <= 1
    script(plot_training, tmp_path / "out" / "log.jsonl", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
