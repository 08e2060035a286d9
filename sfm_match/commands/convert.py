"""`convert`: a finished workspace in another program's files."""

from pathlib import Path

from sfm_match.errors import UsageError, nearest
from sfm_match.formats import FORMATS
from sfm_match.results import Results


def convert(workspace: str | Path = "workspace", *, to: str, out: str | Path) -> list[Path]:
    """Writes what a workspace holds in another format. The workspace stays as it is.

    Args:
        workspace: folder of a job.
        to: a name of `formats.FORMATS`: `undistorted`, `nerfstudio`, `hloc`, ...
        out: folder that is written to; it is made where it is not there.

    Returns:
        The files that were written.

    Raises:
        UsageError: an unknown format, or one that cannot hold what the workspace has.
        NothingDone: the workspace does not have what the format holds.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to}: accepted values are {', '.join(FORMATS)}{nearest(to, FORMATS)}")
    results, folder = Results(workspace), Path(out)
    if folder.resolve() == results.workspace.folder.resolve():
        raise UsageError(f"--out {out}: that is the workspace; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[to].write(results, folder)
