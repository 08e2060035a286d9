"""`convert`: a finished workspace in another program's files, and another program's files in a workspace."""

from pathlib import Path

from sfm_match.errors import UsageError, nearest, quoted
from sfm_match.formats import FORMATS
from sfm_match.images.collection import refresh_collection
from sfm_match.job.progress import StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.options.arguments import checked
from sfm_match.options.stages import ExtractOptions
from sfm_match.results import Results


@checked
def convert(workspace: str | Path = "workspace", *, to: str, out: str | Path, overwrite: bool = False) -> list[Path]:
    """Writes what a workspace holds in another format. The workspace stays as it is.

    Args:
        workspace: folder of a job.
        to: a name of `formats.FORMATS`: `undistorted`, `nerfstudio`, `hloc`, ...
        out: folder that is written to; it is made where it is not there.
        overwrite: replace files that are there; without it they are kept, and nothing is written.

    Returns:
        The files that were written.

    Raises:
        UsageError: an unknown format, one that cannot hold what the workspace has, or files that are there.
        NothingDone: the workspace does not have what the format holds.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {quoted(to)}: accepted values are {', '.join(FORMATS)}{nearest(to, FORMATS)}")
    results, folder = Results(workspace), Path(out)
    if folder.resolve() == results.workspace.folder.resolve():
        raise UsageError(f"--out {out}: that is the workspace; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {quoted(out)}: that is a file; must be a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[to].write(results, folder, overwrite=overwrite)


@checked
def from_hloc(
    images: str | Path,
    workspace: str | Path = "workspace",
    *,
    features: str | Path,
    matches: str | Path,
    pairs: str | Path,
    size: int = ExtractOptions.size,
    overwrite: bool = False,
) -> list[StageReport]:
    """`convert --from hloc`: features and matches of another extractor, as `extract`, `pairs` and `match` leave theirs.

    Then `import_` and `reconstruct` go on from them.

    Args:
        images: folder of the photographs, of which hloc's names are relative paths.
        workspace: folder of the job.
        features: file of hloc's `extract_features`.
        matches: file of hloc's `match_features`.
        pairs: list of pairs, two names a line.
        size: long side of an image when its features were extracted (hloc's `resize_max`), pixels: keypoints are
            adjusted at that scale.
        overwrite: replace results of another origin.

    Raises:
        UsageError: a file is not hloc's or does not fit the images, or results of another origin are there.
        NothingDone: none of the images has features, or no pair of those that have.
    """
    from sfm_match.formats.hloc_reader import HlocFiles, read_hloc

    files = HlocFiles(Path(features), Path(matches), Path(pairs), ExtractOptions(size=size).size)
    with Workspace(Path(workspace), overwrite=overwrite) as place:
        collection = refresh_collection(place, Path(images), None, overwrite=overwrite)
        return read_hloc(place, collection, files, overwrite=overwrite)
