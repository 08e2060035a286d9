"""Folders of files that another program reads: all there, or nothing of them."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sfm_match.errors import UsageError
from sfm_match.results import Results
from sfm_match.signals import removed_if_stopped
from sfm_match.store.shard import commit, temporary_name


@contextmanager
def staged(results: Results, out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yields a temporary folder; when the block ends well, what it holds under `names` durably comes into `out`.

    Args:
        results: of the job.
        out: folder that is there.
        names: of the files and folders to come, the one that programs look for first as the last.

    Raises:
        UsageError: one of them is there already, or the next run would take them for photographs of the job.
    """
    if out.resolve().is_relative_to(results.image_folder.resolve()):
        raise UsageError(f"--out {out}: inside the folder of photographs; choose another folder")
    there = next((out / name for name in names if (out / name).exists()), None)
    if there is not None:
        raise UsageError(f"--out {out}: {there} is there already; remove it, or choose another folder")
    temporary = out / temporary_name("convert")
    temporary.mkdir()
    with removed_if_stopped(temporary):
        try:
            yield temporary
            for name in names:
                if (temporary / name).exists():
                    commit(temporary / name, out / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
