"""How much memory photographs of 96 megapixels take with `--tile`: the peak of each stage, in a process of its own.

    python scripts/benchmarks/large_photographs.py [--size 8000 --tile 2048 --tile-overlap 256] [--out results.md]

The photographs are views of the demo's room, enlarged.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import sfm_match
from sfm_match.commands.plan.measure import peak_memory
from sfm_match.commands.scene import cameras, render, room

SIZE = (12000, 8000)
STAGES = ("extract", "pairs", "match", "import")
MB = 1_000_000


def make_photographs(folder: Path, count: int) -> None:
    planes, views = room(), cameras(16)[4 : 4 + count]
    for view in views:
        large = cv2.resize(np.asarray(render(view, planes), np.uint8), SIZE, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / view.name), large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def run_stage(stage: str, images: Path, workspace: Path, options: dict[str, Any]) -> int:
    """Bytes that a new process took at most."""
    if stage == "extract":
        sfm_match.extract(images, workspace, **options)
    elif stage == "pairs":
        sfm_match.pairs(workspace, strategy="exhaustive")
    elif stage == "match":
        sfm_match.match(workspace)
    else:
        sfm_match.import_(workspace)
    return peak_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3, help="photographs")
    parser.add_argument("--size", type=int, default=8000, help="long side at the network, pixels")
    parser.add_argument("--tile", type=int, default=2048, help="pixels")
    parser.add_argument("--tile-overlap", type=int, default=256, help="pixels")
    parser.add_argument("--out", type=Path, help="Markdown file")
    given = parser.parse_args()
    options = {"size": given.size, "tile": given.tile, "tile_overlap": given.tile_overlap}
    peaks = {}
    with tempfile.TemporaryDirectory() as made:
        images, workspace = Path(made, "images"), Path(made, "workspace")
        images.mkdir()
        # this process stays small: a new one begins with the peak of the one that starts it
        in_new_process(make_photographs, images, given.count)
        for stage in STAGES:
            peaks[stage] = in_new_process(run_stage, stage, images, workspace, options)
    lines = [
        "# Memory of large photographs",
        "",
        f"`scripts/benchmarks/large_photographs.py`: {given.count} photographs of {SIZE[0]:,} x {SIZE[1]:,} pixels, "
        f"--size {given.size} --tile {given.tile} --tile-overlap {given.tile_overlap}, {os.cpu_count()} cores, no GPU.",
        "",
        "| stage | peak, MB |",
        "|---|---|",
        *(f"| {stage} | {peak / MB:,.0f} |" for stage, peak in peaks.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
