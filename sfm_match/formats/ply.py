"""The points of every model with their colours, as PLY."""

from pathlib import Path

from sfm_match.results import Results


def write(results: Results, out: Path) -> list[Path]:
    """As `Format.write`."""
    models = results.earned_models()
    files = [out / (f"points_{number}.ply" if number else "points.ply") for number in range(len(models))]
    for path, model in zip(files, models, strict=True):
        model.export_PLY(str(path))
    return files
