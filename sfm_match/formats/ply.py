"""The points of every model with their colours, as PLY."""

from pathlib import Path

from sfm_match.errors import NothingDone
from sfm_match.results import Results


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    if not results.models:
        raise NothingDone(f"{results.workspace.folder}: no model to write; run `sfm-match reconstruct` first")
    files = [out / (f"points_{number}.ply" if number else "points.ply") for number in range(len(results.models))]
    for path, model in zip(files, results.models, strict=True):
        model.export_PLY(str(path))
    return files
