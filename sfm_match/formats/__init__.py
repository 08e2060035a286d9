"""What a finished workspace can be written as. A new format is a module with `write`, and a line in `FORMATS`.

The other way, `hloc_reader` reads the files of `SOURCES`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfm_match.results import Results


@dataclass(frozen=True)
class Format:
    """A line of the table."""

    module: str  # it has `write(results, out)`, which returns the files that it wrote
    leaves: str  # in the folder that is written to, for help texts
    names: tuple[str, ...]  # of these files and folders, the one that programs look for first as the last

    def write(self, results: "Results", out: Path, *, overwrite: bool = False) -> list[Path]:
        """Writes into a folder that is there, all of the files or none. Files that are there are kept, or replaced.

        Raises:
            NothingDone: the workspace does not have what the format holds.
            UsageError: the format cannot hold what the workspace has, or one of the files is there.
        """
        from sfm_match.formats.staging import staged

        write: Callable[[Results, Path], list[Path]] = importlib.import_module(self.module).write
        with staged(results, out, self.names, overwrite=overwrite) as folder:
            files = write(results, folder)
        return [out / file.relative_to(folder) for file in files]


FORMATS = {
    "hloc": Format(
        "sfm_match.formats.hloc", "features.h5, matches.h5, pairs.txt", ("features.h5", "matches.h5", "pairs.txt")
    ),
    "undistorted": Format(
        "sfm_match.formats.undistorted", "images/, sparse/0 with PINHOLE cameras, masks/", ("images", "masks", "sparse")
    ),
    "nerfstudio": Format(
        "sfm_match.formats.nerfstudio",
        "transforms.json, sparse_pc.ply, images/, masks/",
        ("images", "masks", "sparse_pc.ply", "transforms.json"),
    ),
    "colmap-text": Format(
        "sfm_match.formats.colmap_text",
        "sparse/0/*.txt ...",
        ("sparse",),
    ),
    "bundler": Format(
        "sfm_match.formats.bundler",
        "bundle.out, list.txt",
        ("list.txt", "bundle.out"),
    ),
    "ply": Format(
        "sfm_match.formats.ply",
        "points.ply, points_1.ply ...",
        ("points.ply",),
    ),
}

SOURCES = ("hloc",)  # programs of which `convert --from` reads the files
