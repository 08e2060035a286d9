"""Pictures of a workspace, for those who ask: of a pair of images, of the model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sfm_match.errors import UsageError
from sfm_match.job.progress import Clock, StageReport
from sfm_match.reporting.model_picture import model_of
from sfm_match.reporting.pair_picture import pair_of
from sfm_match.reporting.pictures import Pixels, check_picture, write_picture
from sfm_match.results import Results


def draw(workspace: Path, pair: tuple[str, str] | None, out: Path, png: Path | None, *, overwrite: bool) -> StageReport:
    """Draws a pair of images, the largest model, or both. No lock is taken: a job may run.

    Args:
        workspace: folder of a job, which need not be finished.
        pair: names of two images.
        out: picture of them to write.
        png: picture of the model to write.
        overwrite: files that are there.

    Raises:
        UsageError: there is no such image, or a picture cannot be written there.
        NothingDone: there is no such pair, or no model.
    """
    clock = Clock()
    wanted: list[tuple[str, Path, Callable[[Results], Pixels]]] = []
    if pair is not None:
        wanted.append(("--out", out, partial(pair_of, first=pair[0], second=pair[1])))
    if png is not None:
        wanted.append(("--png", png, model_of))
    if pair is not None and png is not None and out.resolve() == png.resolve():
        raise UsageError(f"--png {png}: --out names the same file")
    for option, path, _ in wanted:
        check_picture(option, path, overwrite=overwrite)
    results = Results(workspace)
    for _, path, make_picture in wanted:
        with clock.on("draw"):
            pixels = make_picture(results)
        with clock.on("write"):
            write_picture(path, pixels)
    paths = [str(path) for _, path, _ in wanted]
    facts = {"path": paths[0], "pictures": paths}
    return StageReport("report", "pictures", len(paths), 0, 0, clock.seconds, clock.spent, ", ".join(paths), facts)
