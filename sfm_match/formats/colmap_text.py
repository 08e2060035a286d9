"""COLMAP's text files of every model: cameras, rigs, frames, images, points."""

from pathlib import Path

from sfm_match.formats.photographs import check_name
from sfm_match.results import Results


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    folders = []
    for number, model in enumerate(results.earned_models()):
        for image in model.images.values():
            check_name(image.name)  # a line break would make lines of its own
        folder = out / "sparse" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        model.write_text(str(folder))
        folders.append(folder)
    return [path for folder in folders for path in sorted(folder.glob("*.txt"))]
