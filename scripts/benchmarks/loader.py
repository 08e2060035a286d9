"""How fast photographs come, without any network: whole JPEGs against those decoded at a fraction of their size.

    python scripts/benchmarks/loader.py [--images DIR] [--out results.json]

Photographs of 12 megapixels are made from those given (without: from rendered views), read once so that the disk plays
no part, and then read, decoded and resized by `extract --dummy-network`, in turn with and without.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

import sfm_match
from sfm_match.commands.scene import cameras, render, room
from sfm_match.images.files import decode, scan

SIZE = (4000, 3000)
ROUNDS = 3


def originals(folder: Path | None, count: int) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB."""
    if folder is None:
        return [np.asarray(render(view, room()), np.uint8) for view in cameras(count)]
    names = [facts.name for facts in scan(folder) if facts.error is None]
    return [decode(folder / names[i % len(names)]) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, default=24, help="photographs")
    parser.add_argument("--size", type=int, default=1024, help="long side at the network, pixels")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, workspace = Path(made, "images"), Path(made, "workspace")
        folder.mkdir()
        for place, image in enumerate(originals(options.images, options.count)):
            large = cv2.resize(image, SIZE, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{place:03d}.jpg"), large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        sizes = [path.stat().st_size for path in folder.iterdir()]
        best = {"whole": 0.0, "reduced": 0.0}
        for _ in range(ROUNDS):
            for name in best:
                report = sfm_match.extract(
                    folder, workspace, dummy_network=True, size=options.size, reduced_decode=name == "reduced"
                )
                best[name] = max(best[name], report.done / report.seconds)
    result = {
        "images_per_s": {name: round(rate, 2) for name, rate in best.items()},
        "ratio": round(best["reduced"] / best["whole"], 2),
        "image": f"{SIZE[0]} x {SIZE[1]}, {np.mean(sizes) / 1e6:.1f} MB on average, to {options.size} px",
        "cores": os.cpu_count(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
