"""Pairs of your own: whatever tells you which images overlap, write it to a file and use the strategy `list`.

    python scripts/examples/own_pairs.py photos workspace

Here images stand in a ring, as on a turntable: each is matched with the next three, and the last ones with the first.
"""

import sys
from pathlib import Path

import sfm_match
from sfm_match.options.pairs import PairsOptions

AFTER = 3  # images that each is matched with


def ring(names: list[str], after: int = AFTER) -> list[tuple[str, str]]:
    """Each image with the `after` that follow it, around the ring."""
    return [(name, names[(i + k) % len(names)]) for i, name in enumerate(names) for k in range(1, after + 1)]


def main(images: str, workspace: str, size: int = 1024, max_keypoints: int = 4096) -> None:
    """Writes the list beside the workspace and runs the job with it."""
    folder = Path(images)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    listed = Path(f"{workspace}-pairs.txt")
    # a TAB between the names: they may hold spaces. The order within a line and repetitions do not matter.
    listed.write_text("".join(f"{a}\t{b}\n" for a, b in ring(names)), encoding="utf-8")
    sfm_match.run(
        images,
        workspace,
        pairs=PairsOptions(strategy="list", match_list_path=listed),
        size=size,
        max_keypoints=max_keypoints,
    )
    results = sfm_match.open(workspace)
    print(f"{len(results.pairs)} pairs, {len(results.verified_pairs)} of them accepted")
    print(f"{results.model.num_reg_images()} of {len(results.images)} images registered")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
