"""What a writer thread gains: units of features are written while the next are computed.

    python scripts/benchmarks/writer.py --out scripts/benchmarks/results/writer.md

A GPU is played by a pause: `--network` seconds for a unit of 64 images. Units are as large as real ones (4,096
keypoints of 256 values in half precision: 138 MB), written, flushed to the disk and renamed as the pipeline does. Each
is written in turn by the thread that waits for the network, and by `background.in_background`; the two alternate.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from units import IMAGES, random_unit

from sfm_match.job.concurrency import in_background
from sfm_match.store.features import unit_path, write_unit

KEYPOINTS, DIMENSION = 4096, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=float, default=0.3, help="seconds that the network takes for a unit")
    parser.add_argument("--units", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--work", type=Path, help="folder on the disk to be measured; without: the system's temporary one"
    )
    parser.add_argument("--out", type=Path, help="markdown file")
    options = parser.parse_args()
    result = random_unit(KEYPOINTS, DIMENSION)
    seconds: dict[str, list[float]] = {"in turn": [], "in the background": []}

    with tempfile.TemporaryDirectory(dir=options.work) as folder:

        def computed() -> Iterator[int]:
            for number in range(options.units):
                time.sleep(options.network)
                yield number

        def write(number: int) -> None:
            write_unit(unit_path(Path(folder), number), result, "f", DIMENSION)

        write(0)
        for _ in range(options.rounds):
            start = time.monotonic()
            for number in computed():
                write(number)
            seconds["in turn"].append(time.monotonic() - start)
            start = time.monotonic()
            for _ in in_background(computed(), write):
                pass
            seconds["in the background"].append(time.monotonic() - start)
        start = time.monotonic()
        write(0)
        alone = time.monotonic() - start

    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    lines = [
        "# A thread that writes",
        "",
        f"`scripts/benchmarks/writer.py`: {options.units} units of {IMAGES} images, {options.network} s of network "
        f"each (a pause), {options.rounds} rounds in turn; writing one took {alone:.2f} s. "
        f"Load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| | seconds a unit, median |",
        "|---|---|",
        *(f"| {name} | {statistics.median(taken) / options.units:.2f} |" for name, taken in seconds.items()),
        "",
        f"In turn / in the background: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
