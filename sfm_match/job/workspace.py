"""The folder of a job: its paths, its lock, and the record of the options each stage ran with."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.job.log import LOGGER
from sfm_match.job.presence import STALE_SECONDS, others_at_work, present
from sfm_match.options.base import flag
from sfm_match.options.stages import OPTION_NAMES
from sfm_match.signals import removed_if_stopped
from sfm_match.store.records import DamagedRecord, OtherSchema, read_json, sealed
from sfm_match.store.shard import TEMPORARY, remove_leftovers, sha256_of, write_text

SCHEMA = 1  # of the record; raise it when the results of earlier versions are no longer what this one would make
FROM = "from"  # in a stage's inputs: the program whose files they were read from, with `convert --from`
_ALONE = ".alone"  # what a process that has the folder for itself says it works on
ANEW = "choose another --workspace, or begin anew with `sfm-match extract --overwrite` or `run --overwrite`"
_CURE = (
    "`sfm-match doctor --repair` moves it aside, and the next run with the same options takes up what is there; or "
    + ANEW
)


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


def _writer_in(name: str) -> str:
    """The machine and process in a temporary name."""
    return name.rpartition(TEMPORARY)[2].rpartition("-")[0]


class WorkspaceBusy(SfmMatchError):
    """Another process works here."""


class RecordError(UsageError):
    """A workspace whose record is damaged, or of another version of the program."""


class Workspace:
    """A job's folder, locked while it is open, or shared by processes that each do a part of a stage."""

    def __init__(self, folder: Path, *, overwrite: bool = False, part: str | None = None) -> None:
        """
        Args:
            folder: of the job; made when the workspace is opened.
            overwrite: begin anew where the record is damaged or of another version. Features and matches of before are
                told by their fingerprints and replaced; what carries none is moved to `earlier-1` at the first note.
            part: what this process does beside others in the same folder, as `extract-2-of-4`; None: it is alone.
        """
        self.folder = folder
        self._overwrite = overwrite
        self._part = part
        self._held = contextlib.ExitStack()
        self._at_work = False
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
        self.thumbnails = folder / "thumbnails.zip"  # small photographs of the report
        self.record = folder / "sfm-match.json"
        self.colmap_log = folder / "colmap.log"  # what COLMAP says of itself
        self.parts = folder / "parts"  # which processes work on parts of a stage, and on which
        self._lock = FileLock(folder / ".lock")

    @property
    def shared(self) -> bool:
        """Whether other processes may do their parts in it at the same time."""
        return self._part is not None

    def __enter__(self) -> Self:
        """Takes the folder for itself, or of a part: says that it is there.

        Raises:
            WorkspaceBusy: another process works here.
            RecordError: another version of the program worked here.
            UsageError: the folder cannot be made or written.
        """
        if self._part is not None:
            self.read_record()
            self._join()
            return self  # temporary files that are here may be those of others, who live
        self.lock()
        try:
            self.read_record()
        except RecordError:
            self.unlock()
            raise
        self._remove_leftovers()
        self._held.enter_context(removed_if_stopped(remove=self._remove_leftovers))
        return self

    def lock(self) -> None:
        """Takes the folder for itself, whatever is in it. Raises WorkspaceBusy or UsageError.

        Where locks do not reach other machines, each says that it is there before it looks for others: of two that
        begin at the same time at least one sees the other.
        """
        with self._refusals(), self._held as entering:
            self.folder.mkdir(parents=True, exist_ok=True)
            entering.enter_context(self._lock.acquire(timeout=0))
            own = entering.enter_context(present(self.folder, _ALONE))
            self._refuse_beside(others_at_work(self.folder, _ALONE, own, self._wait_for))
            if others := others_at_work(self.parts, waiting=self._wait_for):
                raise WorkspaceBusy(
                    f"{self.folder}: parts of this job are at work ({', '.join(others[:2])}"
                    f"{', ...' if len(others) > 2 else ''}); wait for them or stop them"
                )
            self._held = entering.pop_all()
            self._at_work = True

    def _join(self) -> None:
        """Does its part beside others. Raises WorkspaceBusy or UsageError."""
        with self._refusals(), self._held as entering:
            self.folder.mkdir(parents=True, exist_ok=True)
            entering.enter_context(present(self.parts, str(self._part)))
            self._refuse_beside(others_at_work(self.folder, _ALONE, waiting=self._wait_for))
            self._held = entering.pop_all()
            self._at_work = True

    def _refuse_beside(self, alone: list[str]) -> None:
        """Raises WorkspaceBusy where a process has the folder for itself."""
        if alone:
            raise WorkspaceBusy(
                f"{self.folder}: another sfm-match works here ({_writer_in(alone[0])}); wait for it or stop it"
            )

    def _wait_for(self, name: str) -> None:
        """Of a job that was killed on another machine and goes on here, this is what it costs."""
        LOGGER.warning(
            "%s: %s worked here a moment ago; looking for up to %.0f s whether it still does",
            self.folder,
            _writer_in(name),
            STALE_SECONDS,
        )

    def unlock(self) -> None:
        """Gives the folder back."""
        self._at_work = False
        self._held.close()

    @contextlib.contextmanager
    def one_part_at_a_time(self) -> Iterator[None]:
        """Other parts wait, where locks reach them."""
        if not self.shared:
            yield
            return
        with self._refusals():
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """What may happen while a folder is locked, in a line."""
        try:
            yield
        except Timeout:
            raise WorkspaceBusy(f"{self.folder}: another sfm-match works here; wait for it or stop it") from None
        except OSError as error:
            raise UsageError(f"--workspace {self.folder}: {error.strerror}") from error

    @property
    def locked(self) -> bool:
        """Whether this process works here, and may write."""
        return self._at_work

    @contextlib.contextmanager
    def not_deleted(self, stage: str) -> Iterator[None]:
        """For the time that a stage runs. Raises NothingDone, whatever it comes to, where the folder was deleted."""
        try:
            yield
        except Exception as error:
            if self._deleted:
                raise NothingDone(self._lost(stage)) from error
            raise
        if self._deleted:
            raise NothingDone(self._lost(stage))

    @property
    def _deleted(self) -> bool:
        """While it is locked, the lock's file is there, unless somebody deleted it with all that is beside it."""
        return self._lock.is_locked and not Path(self._lock.lock_file).exists()

    def _lost(self, stage: str) -> str:
        return f"{self.folder}: deleted while {stage} ran, with all that was done; run again to begin anew"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlock()

    def _remove_leftovers(self) -> None:
        for folder in (self.folder, self.features, self.matches, self.aligned):
            remove_leftovers(folder)

    def read_record(self) -> dict[str, Any]:
        """Stage -> what it ran with. Empty where nothing ran, or where the job begins anew.

        Raises:
            RecordError: the record is damaged, or of another version.
        """
        try:
            return read_json(self.record, dict[str, int | dict[str, Any]], _CURE, SCHEMA)
        except FileNotFoundError:
            return {}
        except (DamagedRecord, OtherSchema) as error:
            if self._overwrite:
                return {}
            if isinstance(error, DamagedRecord):
                raise RecordError(str(error)) from error
            raise RecordError(
                f"{self.folder}: made by another version of sfm-match (schema {error.found}, this one reads {SCHEMA}); "
                + ANEW
            ) from error

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
            content = sealed({"schema": SCHEMA, **record, key: inputs})
            write_text(self.record, json.dumps(content, indent=1) + "\n")

    def note_written(self, path: Path, **facts: Any) -> None:
        """Puts the digest of a file that was just written on record, and further facts."""
        self.write_record(_written(path), {**facts, "sha256": sha256_of(path)})

    def changed(self, path: Path) -> bool:
        """Whether a file is another than the one on record. Of one that is not there, or not on record, it is not."""
        known = self.read_record().get(_written(path))
        return isinstance(known, dict) and path.is_file() and sha256_of(path) != known.get("sha256")

    def tell_if_changed(self, path: Path) -> None:
        """Says so where somebody, or a disk, changed a file: it is taken as it is."""
        if self.changed(path):
            LOGGER.warning("%s: changed since it was written; it is taken as it is", path)

    def _set_aside(self) -> None:
        """Moves results of another version that later stages would take for their own. Nothing is deleted."""
        aside = next(path for n in itertools.count(1) if not (path := self.folder / f"earlier-{n}").exists())
        aside.mkdir()
        journals = (self.database.with_name(self.database.name + end) for end in ("-wal", "-shm"))
        for path in (self.pairs, self.added_pairs, self.database, *journals, self.sparse, self.unregistered):
            if path.exists():
                path.rename(aside / path.name)


def _written(path: Path) -> str:
    """The entry of the record that has a file's digest."""
    return f"{path.stem} written"


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
