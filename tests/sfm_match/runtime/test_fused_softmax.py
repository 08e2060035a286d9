"""Matching in Triton against `MatchBlock` and numpy. Without a GPU in Triton's interpreter (`tests/conftest.py`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from exports.graphs import MatchBlock
from sfm_match.features import device_graphs as parts
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.matching.on_device import packed
from sfm_match.runtime.torch import TorchRuntime

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# older interpreters do not take numpy 2.4
triton = pytest.importorskip(
    "triton",
    "3.9" if INTERPRETED else None,
    reason="no Triton, or its interpreter is too old; torch's builds for GPUs bring it, `pip install triton` does",
)
fused = pytest.importorskip("sfm_match.runtime.fused_softmax")

DEVICE = "cpu" if INTERPRETED else "cuda"
SMALL = fused.Tile(16, 32, 4, 1)  # rows, columns: the interpreter is slow, and several tiles are to meet
WORLD = 24  # channels


def unit(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, WORLD))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def views(counts: list[int], noise: float = 0.1) -> list[np.ndarray]:
    """The same descriptors with noise, in different orders and numbers."""
    rng = np.random.default_rng(len(counts))
    world = unit(max(counts), 0).astype(np.float64)
    found = []
    for count in counts:
        seen = world[rng.permutation(len(world))[:count]] + rng.normal(0, noise, (count, WORLD))
        found.append((seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float16))
    return found


def both(
    views: list[np.ndarray],
    keypoints: int,
    pairs: list[list[int]],
    *,
    temperature: float = 20.0,
    dtype: torch.dtype = torch.float16,
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """What the kernels write, and what `MatchBlock` finds on the CPU."""
    given = torch.from_numpy(packed(views, keypoints)).to(dtype), torch.tensor(pairs), torch.tensor([temperature])
    _, _, ours = fused.FusedMatchBlock(SMALL).written(*(tensor.to(DEVICE) for tensor in given))
    return {name: value.cpu() for name, value in ours.items()}, MatchBlock()(*given)


def assert_same(ours: dict[str, Any], theirs: tuple[Tensor, Tensor]) -> None:
    for value in ours.values():
        assert torch.isfinite(value).all()
    torch.testing.assert_close(ours["scores"], theirs[1], atol=1e-5, rtol=1e-4)
    kept = theirs[1] > 1e-6
    assert torch.equal(ours["places"][kept], theirs[0][kept])
    assert ours["places"].dtype == torch.int32
    assert int(ours["places"].min()) >= 0
    assert int(ours["places"].max()) < ours["places"].shape[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_as_match_block_and_as_numpy(dtype: torch.dtype) -> None:
    """Images of many keypoints, of few, of one and of none; 70 rows are no multiple of any tile."""
    images = views([70, 45, 1, 0])
    pairs = [[0, 1], [1, 0], [0, 2], [2, 0], [2, 2], [0, 3], [3, 0], [3, 3]]
    ours, theirs = both(images, 70, pairs, dtype=dtype)
    assert_same(ours, theirs)
    for row, (i, j) in enumerate(pairs):
        expected = match_descriptors(images[i].astype(np.float32), images[j].astype(np.float32), 0.05)
        scores = ours["scores"][row].numpy()
        kept = np.flatnonzero(scores > 0.05)
        np.testing.assert_array_equal(np.stack((kept, ours["places"][row].numpy()[kept]), axis=1), expected.indices)
        np.testing.assert_allclose(scores[kept], expected.scores.astype(np.float32), atol=1e-3)
        assert not scores[len(images[i]) :].any()
        assert (3 in (i, j)) == (not len(kept))


@pytest.mark.parametrize("temperature", [1.0, 40.0])
def test_padding_is_defined_everywhere_and_matches_nothing(temperature: float) -> None:
    ours, theirs = both([unit(5, 1), unit(33, 2)], 48, [[0, 1], [1, 0]], temperature=temperature)
    assert_same(ours, theirs)
    assert not ours["scores"][0, 5:].any()
    assert not ours["scores"][1, 33:].any()


def test_of_equal_descriptors_the_first_is_matched() -> None:
    # 16 channels of 1/4 or -1/4: sums are exact in any order, and the interpreter's products are of no fixed one
    one = np.zeros((20, WORLD), np.float16)
    one[:, :16] = np.random.default_rng(3).choice([-0.25, 0.25], (20, 16))
    ours, theirs = both([np.concatenate((one, one)), one], 40, [[0, 1], [1, 0], [0, 0]])
    # places are not compared: torch's sums over columns are of no fixed order either
    torch.testing.assert_close(ours["scores"], theirs[1], atol=1e-5, rtol=1e-4)
    for row in range(3):
        assert ours["scores"][row].nonzero()[:, 0].tolist() == list(range(20))
        assert ours["places"][row, :20].tolist() == list(range(20))


def test_the_same_bits_every_time() -> None:
    images = views([48, 40])
    first, _ = both(images, 48, [[0, 1], [1, 0]])
    again, _ = both(images, 48, [[0, 1], [1, 0]])
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_no_pairs_and_no_keypoints() -> None:
    block = torch.zeros(2, 16, WORLD + 8, dtype=torch.float16, device=DEVICE)
    pairs, temperature = torch.tensor([[0, 1]], device=DEVICE), torch.tensor([20.0], device=DEVICE)
    places, scores = fused.FusedMatchBlock()(block, pairs[:0], temperature)
    assert places.shape == scores.shape == (0, 16)
    places, scores = fused.FusedMatchBlock()(block[:, :0], pairs, temperature)
    assert places.shape == scores.shape == (1, 0)


@pytest.mark.parametrize(
    ("columns", "expected"), [(10, (16, 0)), (32, (32, 0)), (72, (64, 16)), (264, (256, 16)), (200, (128, 128))]
)
def test_channels_fill_tensor_cores(columns: int, expected: tuple[int, int]) -> None:
    assert fused.channels(columns) == expected


def test_a_runtime_runs_them_where_it_is_told_to() -> None:
    images = views([64, 50], 0.05)
    block, pairs = packed(images, 64), np.array([[0, 1]], np.int64)
    runtime = TorchRuntime(DEVICE, fused=True)
    session = runtime.load(parts.match_block(2, 64, WORLD + 8, 1))
    feeds: dict[str, np.ndarray] = {
        "descriptors": block,
        "pairs": pairs,
        "inverse_temperature": np.array([20.0], np.float32),
    }
    on_device = {name: runtime.put(name, value) for name, value in feeds.items()}
    for _ in range(1 if INTERPRETED else 3):  # plain, captured, replayed
        found = session.run(on_device)
        places, scores = runtime.get(found["places"])[0], runtime.get(found["scores"])[0]
        first, second = (one.astype(np.float32) for one in images)
        expected = match_descriptors(first, second, 0.05)
        kept = np.flatnonzero(scores > 0.05)
        assert len(kept) > 40
        np.testing.assert_array_equal(np.stack((kept, places[kept]), axis=1), expected.indices)
    assert "Triton" in session.note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "instruction", "tile", "most"),
    [
        (80, "mma.sync", -1, 99 << 10),  # the smallest on Ada, whose kernels are Ampere's
        (80, "mma.sync", 0, 163 << 10),
        (90, "wgmma.mma_async", 0, 227 << 10),
    ],
)
def test_kernels_compile_for_gpus_and_fit_them(
    capability: int, instruction: str, tile: int, most: int, tmp_path: Path
) -> None:
    """Without a GPU: Triton brings its assembler. On tensor cores, within the shared memory of a block (bytes)."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    program = Path(__file__).with_name("compile_fused.py")
    done = subprocess.run(
        [sys.executable, str(program), str(capability), str(tile)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kernel in json.loads(done.stdout):
        assert kernel["shared"] <= most
        assert instruction in kernel["instructions"]
