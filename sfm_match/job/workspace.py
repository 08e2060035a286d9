"""The folder of a job: its paths, its lock, and the record of the options each stage ran with."""

import itertools
import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from sfm_match.errors import SfmMatchError, UsageError
from sfm_match.options.base import flag
from sfm_match.options.stages import OPTION_NAMES
from sfm_match.signals import removed_if_stopped
from sfm_match.store.shard import remove_leftovers, write_text

SCHEMA = 1  # of the record; raise it when the results of earlier versions are no longer what this one would make
FROM = "from"  # in a stage's inputs: the program whose files they were read from, with `convert --from`
ANEW = "choose another --workspace, or begin anew with `sfm-match extract --overwrite` or `run --overwrite`"


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


class WorkspaceBusy(SfmMatchError):
    """Another process works here."""


class RecordError(UsageError):
    """A workspace whose record is damaged, or of another version of the program."""


class Workspace:
    """A job's folder, locked while it is open."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        """
        Args:
            folder: of the job; made when the workspace is opened.
            overwrite: begin anew where the record is damaged or of another version. Features and matches of before are
                told by their fingerprints and replaced; what carries none is moved to `earlier-1` at the first note.
        """
        self.folder = folder
        self._overwrite = overwrite
        self.collection = folder / "images.json"
        self.images = folder / "images"  # where videos are: their frames, and links to the photographs
        self.features = folder / "features"
        self.pairs = folder / "pairs.txt"
        self.added_pairs = folder / "pairs-added.txt"  # those of second rounds, which are in pairs.txt, too
        self.matches = folder / "matches"
        self.database = folder / "database.db"
        self.aligned = folder / "database.aligned"  # while keypoints are adjusted
        self.sparse = folder / "sparse"
        self.failed = folder / "failed.csv"
        self.unregistered = folder / "unregistered.csv"  # images that are in no model, and why
        self.stages = folder / "stages.json"  # what each stage did, and how long it took
        self.report = folder / "report.html"
        self.record = folder / "sfm-match.json"
        self._lock = FileLock(folder / ".lock")
        self._unfinished = ExitStack()

    def __enter__(self) -> Self:
        """Locks the folder.

        Raises:
            WorkspaceBusy: another process works here.
            RecordError: another version of the program worked here.
            UsageError: the folder cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise WorkspaceBusy(f"{self.folder}: another sfm-match works here; wait for it or stop it") from None
        except OSError as error:
            raise UsageError(f"--workspace {self.folder}: {error.strerror}") from error
        try:
            self.read_record()
        except RecordError:
            self._lock.release()
            raise
        self._remove_leftovers()
        self._unfinished.enter_context(removed_if_stopped(remove=self._remove_leftovers))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unfinished.close()
        self._lock.release()

    def _remove_leftovers(self) -> None:
        for folder in (self.folder, self.features, self.matches, self.aligned):
            remove_leftovers(folder)

    def read_record(self) -> dict[str, Any]:
        """Stage -> what it ran with. Empty where nothing ran, or where the job begins anew.

        Raises:
            RecordError: the record is damaged, or of another version.
        """
        if not self.record.exists():
            return {}
        try:
            record: Any = json.loads(self.record.read_text(encoding="utf-8"))
        except ValueError:
            record = None
        if isinstance(record, dict) and record.get("schema") == SCHEMA:
            return record
        if self._overwrite:
            return {}
        if not isinstance(record, dict):
            raise RecordError(f"{self.record}: damaged; {ANEW}")
        raise RecordError(
            f"{self.folder}: made by another version of sfm-match (schema {record.get('schema', 'unknown')}, "
            f"this one reads {SCHEMA}); {ANEW}"
        )

    def check(self, stage: str, inputs: dict[str, Any], *, overwrite: bool) -> None:
        """Refuses to mix what a stage left with something else.

        Raises:
            UsageError: the stage ran with others; the message shows the difference.
        """
        before = self.read_record().get(stage)
        if before is not None and before != inputs and not overwrite:
            if FROM in before or FROM in inputs:
                raise UsageError(
                    f"{self.folder}: the results of {stage} {_origin(before, inputs)}; choose another --workspace, or "
                    "add --overwrite to replace them"
                )
            changed = sorted(k for k in {*before, *inputs} if before.get(k) != inputs.get(k))
            shown = ", ".join(f"{_name(k)} was {_shown(before.get(k))}, now {_shown(inputs.get(k))}" for k in changed)
            raise UsageError(
                f"{self.folder}: {stage} ran with other options ({shown}); "
                "give those options again, add --overwrite to replace its results, or choose another --workspace"
            )

    def write_record(self, key: str, inputs: dict[str, Any]) -> None:
        """Writes one entry of the record."""
        record = self.read_record()
        if not record and self.record.exists():
            self._set_aside()
        if record.get(key) != inputs:
            write_text(self.record, json.dumps({"schema": SCHEMA, **record, key: inputs}, indent=1) + "\n")

    def _set_aside(self) -> None:
        """Moves results of another version that later stages would take for their own. Nothing is deleted."""
        aside = next(path for n in itertools.count(1) if not (path := self.folder / f"earlier-{n}").exists())
        aside.mkdir()
        journals = (self.database.with_name(self.database.name + end) for end in ("-wal", "-shm"))
        for path in (self.pairs, self.added_pairs, self.database, *journals, self.sparse, self.unregistered):
            if path.exists():
                path.rename(aside / path.name)


def _origin(before: dict[str, Any], inputs: dict[str, Any]) -> str:
    """Where results came from, if those of now are read from another program's files, or those of before were."""
    if FROM not in before:
        return "were computed by sfm-match"
    same = before[FROM] == inputs.get(FROM)
    return f"were read from {'other files' if same else 'the files'} of {before[FROM]}"


def _name(key: str) -> str:
    """An entry of a record: options by their flags."""
    return flag(key) if key in OPTION_NAMES else key


def _shown(value: Any) -> str:
    """A value of a record, in words where JSON has none that people use."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
