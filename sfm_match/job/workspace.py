"""The folder of a job: its paths, its lock, and the record of the options each stage ran with."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from sfm_match.errors import SfmMatchError, UsageError
from sfm_match.store.shard import remove_leftovers, write_text


def made_by() -> dict[str, str]:
    """What results came from; not part of any fingerprint."""
    from importlib.metadata import version

    import onnxruntime

    return {
        "sfm-match": version("sfm-match"),
        "onnxruntime": str(onnxruntime.__version__),
        "pycolmap": version("pycolmap"),
        "coordinates": "raw pixels, the centre of the top-left one at (0.5, 0.5), as in COLMAP",
    }


def _said(facts: dict[str, Any], others: dict[str, Any], key: str) -> Any:
    """A value of a record. Yes and no are left out where they do what was done before there was a choice."""
    other = others.get(key)
    return facts.get(key, not other if isinstance(other, bool) else None)


class WorkspaceBusy(SfmMatchError):
    """Another process works here."""


class Workspace:
    """A job's folder, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collection = folder / "images.json"
        self.features = folder / "features"
        self.pairs = folder / "pairs.txt"
        self.added_pairs = folder / "pairs-added.txt"  # those of second rounds, which are in pairs.txt, too
        self.matches = folder / "matches"
        self.database = folder / "database.db"
        self.aligned = folder / "database.aligned"  # while keypoints are adjusted
        self.sparse = folder / "sparse"
        self.failed = folder / "failed.csv"
        self.unregistered = folder / "unregistered.csv"  # images that are in no model, and why
        self._record = folder / "sfm-match.json"
        self._lock = FileLock(folder / ".lock")

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise WorkspaceBusy(f"{self.folder}: another sfm-match works here; wait for it or stop it") from None
        except OSError as error:
            raise UsageError(f"--workspace {self.folder}: {error.strerror}") from error
        for folder in (self.folder, self.features, self.matches, self.aligned):
            remove_leftovers(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def record(self) -> dict[str, Any]:
        """Stage -> what it ran with."""
        if not self._record.exists():
            return {}
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SfmMatchError(f"{self._record}: not readable; run with --overwrite after deleting it") from error
        return dict(record)

    def check(self, stage: str, facts: dict[str, Any], *, overwrite: bool) -> None:
        """Refuses to mix what a stage left with something else.

        Raises:
            UsageError: the stage ran with other facts; the message shows the difference.
        """
        before = self.record().get(stage)
        if before is not None and before != facts and not overwrite:
            changed = sorted(k for k in {*before, *facts} if before.get(k) != facts.get(k))
            shown = ", ".join(
                f"{key} was {_said(before, facts, key)}, now {_said(facts, before, key)}" for key in changed
            )
            raise UsageError(
                f"{self.folder}: {stage} ran with other options ({shown}); "
                "give those options again, add --overwrite to replace its results, or choose another --workspace"
            )

    def note(self, key: str, facts: dict[str, Any]) -> None:
        """Writes one entry of the record."""
        record = self.record()
        if record.get(key) != facts:
            write_text(self._record, json.dumps({**record, key: facts}, indent=1) + "\n")
