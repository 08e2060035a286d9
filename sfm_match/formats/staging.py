"""Files that another program reads: all there, or nothing of them."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sfm_match.errors import UsageError, quoted
from sfm_match.results import Results
from sfm_match.signals import remove_all, removed_if_stopped
from sfm_match.store.shard import commit, temporary_name

_PICTURES = "images"


@contextmanager
def staged(results: Results, out: Path, names: Sequence[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder; when the block ends well, what it holds durably comes into `out`.

    Args:
        results: of the job.
        out: folder that is there.
        names: of the files and folders to come, the one that programs look for first as the last. What else is in the
            temporary folder comes before.
        overwrite: replace files that are there. Folders never are: what else is in them is the user's.

    Raises:
        UsageError: one of them is there already, or the next run would take them for photographs of the job.
    """
    if _PICTURES in names and out.resolve().is_relative_to(results.image_folder.resolve()):
        raise UsageError(f"--out {quoted(out)}: inside the folder of photographs; choose another folder")
    for name in names:
        _refuse(out, name, overwrite=overwrite)
    temporary = out / temporary_name("convert")
    unfinished = [temporary]  # until all is there, what has come into `out` is, too
    with removed_if_stopped(remove=lambda: remove_all(unfinished)):
        try:
            temporary.mkdir()
            yield temporary
            others = sorted({path.name for path in temporary.iterdir()} - set(names))
            for name in others:
                _refuse(out, name, overwrite=overwrite)
            for name in (*others, *names):
                if (temporary / name).exists():
                    if not os.path.lexists(out / name):
                        unfinished.append(out / name)
                    commit(temporary / name, out / name)
            shutil.rmtree(temporary, ignore_errors=True)
        except BaseException:
            remove_all(unfinished)
            raise


def _refuse(out: Path, name: str, *, overwrite: bool) -> None:
    path = out / name
    if path.is_dir():
        raise UsageError(f"--out {quoted(out)}: {path} is there already; remove it, or choose another folder")
    if path.exists() and not overwrite:
        raise UsageError(
            f"--out {quoted(out)}: {path} is there already; add --overwrite to replace it, or choose another folder"
        )
