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

    def write(self, results: "Results", out: Path) -> list[Path]:
        """Writes into a folder that is there.

        Raises:
            NothingDone: the workspace does not have what the format holds.
            UsageError: the format cannot hold what the workspace has.
        """
        write: Callable[[Results, Path], list[Path]] = importlib.import_module(self.module).write
        return write(results, out)


FORMATS = {
    "hloc": Format("sfm_match.formats.hloc", "features.h5, matches.h5, pairs.txt"),
    "undistorted": Format("sfm_match.formats.undistorted", "images/, sparse/0 with PINHOLE cameras, masks/"),
    "nerfstudio": Format("sfm_match.formats.nerfstudio", "transforms.json, sparse_pc.ply, images/, masks/"),
    "colmap-text": Format("sfm_match.formats.colmap_text", "sparse/0/*.txt ..."),
    "bundler": Format("sfm_match.formats.bundler", "bundle.out, list.txt"),
    "ply": Format("sfm_match.formats.ply", "points.ply, points_1.ply ..."),
}

SOURCES = ("hloc",)  # programs of which `convert --from` reads the files
