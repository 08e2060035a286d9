"""Files that a command is told to write: nothing that is there is replaced unless the user says so."""

from collections.abc import Iterable
from pathlib import Path

from sfm_match.errors import UsageError, quoted


def check_output(path: Path, option: str, *, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Before anything is computed.

    Args:
        path: file to write.
        option: that names it, or its folder.
        inputs: of the command, which are never replaced.
        overwrite: replace a file that is there.

    Raises:
        UsageError: it is an input or a folder, it is there, or its folder is not.
    """
    where = f"{option} {quoted(path)}"
    if not path.parent.is_dir():
        raise UsageError(f"{where}: no such folder as {quoted(path.parent)}")
    if path.is_dir():
        raise UsageError(f"{where}: that is a folder; must be a file's name")
    if not path.exists():
        return
    if any(one.exists() and path.samefile(one) for one in inputs):
        raise UsageError(f"{where}: that is an input of this command; choose another name")
    if not overwrite:
        raise UsageError(f"{where}: it is there; add --overwrite to replace it, or choose another name")
