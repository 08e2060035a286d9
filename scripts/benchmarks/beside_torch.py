"""Extraction and matching beside torch and kornia: images and pairs a second, in one run, by turns.

    python scripts/benchmarks/beside_torch.py --images DIR --out scripts/benchmarks/results [--rounds 3] [--limit 24]

All have every core. Ours is whole stages, with decoding, files and a flush to the disk; the others have their images in
memory already, so that the ratios of extraction are rather too small than too large. torch and kornia run eagerly in
float32. kornia's L-B has random weights: its time does not depend on them.

Matching without files: pairs of 4096 unit descriptors of 256 values, half of which have a partner. kornia's dual
softmax is that of its LoFTR (`CoarseMatching`: two softmaxes, mutual maxima above a threshold). Matching with files:
the features of the images, all pairs, `sfm-match match` against a loop as hloc's: of each pair the descriptors are read
from HDF5, matched by the same dual softmax, and written to a group of its own.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import sfm_match
from exports.keypoints import Detect
from exports.networks import Describe
from exports.registry import FAMILY
from exports.weights import load_networks
from sfm_match.images.files import decode
from sfm_match.images.loader import normalise
from sfm_match.job.cores import cores
from sfm_match.matching.dual_softmax import match_descriptors
from sfm_match.models import Weights
from sfm_match.models.prepared import sources

SIZE, KEYPOINTS = 1024, 4096
THRESHOLD, INVERSE_TEMPERATURE = 0.1, 20.0
PAIRS = 8  # of random descriptors, a round

Ways = dict[str, Callable[[], float]]


def kornia_dual_softmax(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(N, D), (M, D) -> (K, 2) indices; as `kornia.feature.loftr`'s CoarseMatching, without its borders."""
    similarity = torch.einsum("lc,sc->ls", first, second).mul_(INVERSE_TEMPERATURE)
    confidence = torch.softmax(similarity, 0) * torch.softmax(similarity, 1)
    mask = confidence > THRESHOLD
    mask &= confidence == confidence.max(dim=1, keepdim=True)[0]
    mask &= confidence == confidence.max(dim=0, keepdim=True)[0]
    return mask.nonzero()


def by_turns(ways: Ways, rounds: int) -> dict[str, float]:
    """Medians of what each way returns: seconds for one image or pair."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: statistics.median(values) for name, values in taken.items()}


def timed(work: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / count


def as_tensor(path: Path) -> torch.Tensor:
    """(1, 3, H, W), ImageNet-normalised, sides multiples of 64 below the pipeline's size."""
    image = decode(path)
    scale = min(1.0, SIZE / max(image.shape[:2]))
    height, width = (max(64, round(side * scale) // 64 * 64) for side in image.shape[:2])
    smaller = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return torch.from_numpy(normalise(smaller)[None])


def extraction(images: Sequence[Path], rounds: int) -> dict[str, float]:
    """Seconds an image."""
    import kornia

    member = FAMILY["dedode-nano"]
    networks = load_networks(member, sources(name="dedode-nano", weights=Weights())[0])
    detect, describe = Detect(networks.detector, KEYPOINTS).eval(), Describe(networks.descriptor).eval()
    large = kornia.feature.DeDoDe(detector_model="L", descriptor_model="B", amp_dtype=torch.float32).eval()
    tensors = [as_tensor(path) for path in images]

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            chosen = Path(folder) / "images"
            chosen.mkdir()
            for path in images:
                (chosen / path.name).symlink_to(path.resolve())
            return timed(lambda: sfm_match.extract(chosen, Path(folder) / "job"), len(images))

    def eager(of: Sequence[torch.Tensor], work: Callable[[torch.Tensor], object]) -> float:
        with torch.inference_mode():
            return timed(lambda: [work(one) for one in of], len(of))

    return by_turns(
        {
            "sfm-match extract, dedode-nano": ours,
            "torch eager, dedode-nano": lambda: eager(tensors, lambda one: describe(one, detect(one)[0])),
            "kornia, DeDoDe L-B": lambda: eager(tensors[:2], lambda one: large(one, n=KEYPOINTS)),
        },
        rounds,
    )


def descriptors(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    first = rng.normal(size=(KEYPOINTS, 256)).astype(np.float32)
    second = first[rng.permutation(KEYPOINTS)] + rng.normal(0, 0.5, first.shape).astype(np.float32)
    second[KEYPOINTS // 2 :] = rng.normal(size=(KEYPOINTS - KEYPOINTS // 2, 256))
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second))
    return first, second


def matching(rounds: int) -> dict[str, float]:
    """Seconds a pair, without files. Ours matches as many pairs at once as there are cores, as the stage does."""
    rng = np.random.default_rng(0)
    pairs = [descriptors(rng) for _ in range(PAIRS)]
    tensors = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in pairs]

    def one(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> int:
        return len(match_descriptors(*pair, THRESHOLD, INVERSE_TEMPERATURE).indices)

    expected = [len(kornia_dual_softmax(*pair)) for pair in tensors]
    if [one(pair) for pair in pairs] != expected:
        raise SystemExit("the two find different matches")
    with ThreadPoolExecutor(cores()) as threads, threadpool_limits(1, "blas"):
        return by_turns(
            {
                "sfm-match": lambda: timed(lambda: list(threads.map(one, pairs)), PAIRS),
                "kornia's dual softmax": lambda: timed(lambda: [kornia_dual_softmax(*p) for p in tensors], PAIRS),
            },
            rounds,
        )


def with_files(images: Path, rounds: int) -> dict[str, Any]:
    """Seconds a pair, with files, and bytes a pair."""
    with tempfile.TemporaryDirectory() as folder:
        job, features = Path(folder) / "job", Path(folder) / "features.h5"
        sfm_match.extract(images, job)
        sfm_match.pairs(job, strategy="exhaustive")
        names = sorted(sfm_match.open(job).images)
        with h5py.File(features, "w") as file:
            for name, found in sfm_match.open(job).iter_features():
                group = file.create_group(name)
                group.create_dataset("keypoints", data=found.keypoints)
                group.create_dataset("descriptors", data=found.descriptors)
        pairs = list(itertools.combinations(names, 2))
        sizes: dict[str, int] = {}

        def ours() -> float:
            seconds = timed(lambda: sfm_match.match(job, overwrite=True), len(pairs))
            sizes["sfm-match"] = sum(path.stat().st_size for path in (job / "matches").glob("*.h5"))
            for path in (job / "matches").glob("*.h5"):
                path.unlink()
            return seconds

        def loop() -> None:
            out = Path(folder) / "matches.h5"
            out.unlink(missing_ok=True)
            for first, second in pairs:
                with h5py.File(features, "r") as file:
                    a, b = (torch.from_numpy(file[n]["descriptors"][()]).float() for n in (first, second))
                found = kornia_dual_softmax(a, b).numpy()
                with h5py.File(out, "a") as file:
                    group = file.create_group(f"{first}/{second}")
                    group.create_dataset("matches0", data=found)
            with out.open("rb") as written:
                os.fsync(written.fileno())
            sizes["a group a pair"] = out.stat().st_size

        seconds = by_turns({"sfm-match match": ours, "a group a pair": lambda: timed(loop, len(pairs))}, rounds)
        return {**seconds, "bytes a pair": {name: size / len(pairs) for name, size in sizes.items()}}


def table(rows: dict[str, float], ours: str) -> list[str]:
    return [f"| {name} | {1000 * s:.1f} | {s / rows[ours]:.2f} |" for name, s in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=24, help="images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)  # before, not after, what takes minutes
    images = sorted(path for path in options.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = images[: options.limit]
    load = os.getloadavg()[0]
    with torch.inference_mode():
        extracted = extraction(images, options.rounds)
        matched = matching(options.rounds)
        with tempfile.TemporaryDirectory() as folder:
            for path in images:
                (Path(folder) / path.name).symlink_to(path.resolve())
            filed = with_files(Path(folder), options.rounds)
    per_pair = filed.pop("bytes a pair")
    machine = f"{platform.machine()}, {cores()} cores, load before {load:.1f}, {len(images)} images"
    result = {"machine": machine, "extraction": extracted, "matching": matched, "with files": filed, "bytes": per_pair}
    (options.out / "beside_torch.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [f"`scripts/benchmarks/beside_torch.py`, medians of {options.rounds}; {machine}.", ""]
    head = ["| | ms | times ours |", "|---|---|---|"]
    for title, rows in (
        ("One image", extracted),
        ("One pair, 4096 x 256, no files", matched),
        ("One pair of the images' features, with files", filed),
    ):
        lines += [f"{title}:", "", *head, *table(rows, next(iter(rows))), ""]
    lines.append("Bytes a pair: " + ", ".join(f"{name} {size:,.0f}" for name, size in per_pair.items()) + ".")
    (options.out / "beside_torch.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
