"""Seconds that the report's small photographs take: all new, one of them new, none.

python scripts/benchmarks/report_thumbnails.py photos
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from sfm_match.images.files import ImageError, read_header, scan
from sfm_match.reporting.thumbnails import thumbnails


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of photographs")
    folder: Path = parser.parse_args().images.absolute()
    headers = {}
    with tempfile.TemporaryDirectory() as place:
        links = Path(place) / "images"
        links.mkdir()
        for number, one in enumerate(scan(folder)):  # links: one of them is to change
            try:
                headers[f"{number}.jpg"] = read_header(folder / one.name)
            except ImageError:
                continue
            (links / f"{number}.jpg").symlink_to(folder / one.name)
        changed = links / next(iter(headers))
        for what in ("all new", "one new", "none new"):
            if what == "one new":
                content = changed.read_bytes()
                changed.unlink()
                changed.write_bytes(content)
                os.utime(changed, (0, 0))
            start = time.perf_counter()
            made = thumbnails(links, headers, Path(place) / "thumbnails.zip")
            seconds = time.perf_counter() - start
            print(f"{what}: {seconds:.3f} s, {len(made.pictures):,} photographs, {made.side} pixels")


if __name__ == "__main__":
    main()
