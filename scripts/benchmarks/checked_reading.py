"""What checksums and validation cost: features of a unit read by sfm-match, and by h5py alone.

    python scripts/benchmarks/checked_reading.py --out scripts/benchmarks/results/checked_reading.md

The same unit of 64 images is read from a file with checksums, and from the same content without its head, as h5py reads
it image by image. The two alternate; the ratio is the median over the rounds. `disk`: the system is told to forget the
file before each reading.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from units import IMAGES, random_unit

from sfm_match.store.features import Features, read_features, write_unit

KINDS = {"dedode-nano, 2,048 keypoints": (2048, 64), "DeDoDe-B, 4,096 keypoints": (4096, 256)}


def bare(path: Path, names: Sequence[str], *, descriptors: bool) -> list[Features]:
    """Nothing is checked."""
    with h5py.File(path, "r") as file:
        rows, offsets = {name: row for row, name in enumerate(file["names"].asstr()[()])}, file["offsets"][()]
        found = []
        for name in names:
            part = slice(offsets[rows[name]], offsets[rows[name] + 1])
            described = file["descriptors"][part] if descriptors else np.empty((0, 0), np.float16)
            found.append(Features(file["keypoints"][part], file["scores"][part], described))
        return found


def seconds(read: Callable[[], object], forgotten: Path | None) -> float:
    if forgotten is not None:
        with forgotten.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    read()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", type=Path, help="folder on the disk to be measured")
    parser.add_argument("--out", type=Path, help="markdown file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for kind, shape in KINDS.items():
            checked, plain = Path(folder, "checked.h5"), Path(folder, "plain.h5")
            result = random_unit(*shape)
            write_unit(checked, result, "f", shape[1])
            content = checked.read_bytes()
            plain.write_bytes(content[content.index(b"\x89HDF") :])
            every = list(result.features)
            for part, names, descriptors in (
                ("all", every, True),
                ("every second image", every[::2], True),
                ("keypoints only", every, False),
            ):
                read = partial(read_features, checked, names, descriptors=descriptors)
                read_bare = partial(bare, plain, names, descriptors=descriptors)
                for cold in (False, True):
                    ours, theirs = [], []
                    for _ in range(options.rounds):
                        ours.append(seconds(read, checked if cold else None))
                        theirs.append(seconds(read_bare, plain if cold else None))
                    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
                    took = f"{1e3 * statistics.median(ours):.1f} | {1e3 * statistics.median(theirs):.1f}"
                    rows.append(f"| {kind} | {part} | {'disk' if cold else 'memory'} | {took} | {ratio:.2f} |")
    lines = [
        "# Reading that is checked",
        "",
        f"`scripts/benchmarks/checked_reading.py`: a unit of {IMAGES} images, {options.rounds} rounds in turn. "
        f"Load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| features | read | from | checked, ms | h5py alone, ms | ratio, median |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
