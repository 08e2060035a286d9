"""The images of a job and the units they belong to.

A unit keeps its images: growth appends units, so that results of earlier runs stay valid. An image whose file changed
gets a new unit; the row in its old unit is then unused.

New images go into units by shape, so that the batches of a unit are full: 4,178 photographs of many kinds take 282
network calls of up to 16 images, 442 where units go by name, 272 at the least.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_match.errors import NothingDone, UsageError, quoted
from sfm_match.images.files import SUFFIXES, Header, ImageError, ScannedFile
from sfm_match.images.headers import read_headers
from sfm_match.images.image_table import ImageRecord, ImageTable
from sfm_match.images.sources import Source, find_source, preview, take_frames
from sfm_match.images.videos import SUFFIXES as VIDEO_SUFFIXES
from sfm_match.images.videos import Sampling
from sfm_match.job.concurrency import give_memory_back
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import MakeProgress, no_progress
from sfm_match.job.workspace import ANEW, RecordError, Workspace
from sfm_match.store.columns import Column, Groups, Names, Texts
from sfm_match.store.kept_state import digest_of
from sfm_match.store.records import (
    DamagedRecord,
    ImpossibleEntry,
    OtherSchema,
    entries_digest,
    read_entries,
    write_entries,
)
from sfm_match.store.shard import set_aside
from sfm_match.store.validation import LARGEST

UNIT_SIZE = 64  # images; what a kill costs at most, and what a file holds
_NAMED = 3  # images, in a warning
_MOST_UNITS = 1 << 30  # blocks of pairs count twice as many, in 32 bits
SCHEMA = 3  # of images.json
_CURE = "`sfm-match doctor --repair` moves it aside; the next `run` or `extract` looks at the images again"


@dataclass(frozen=True)
class _Stored:
    """What images.json holds."""

    folder: str
    masks: str | None
    next_unit: int
    images: Sequence[ImageRecord]
    absent: Sequence[ImageRecord]
    source: str | None = None
    videos: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _OnDisk:
    """What images.json holds, and its `entries_digest`."""

    stored: _Stored
    digest: str

    def holds(self, other: _Stored) -> bool:
        """Whether it holds the same. What is the same object is not gone through."""
        mine = self.stored
        if (mine.folder, mine.masks, mine.source) != (other.folder, other.masks, other.source):
            return False
        if mine.images is other.images and mine.absent is other.absent:
            return (mine.next_unit, mine.videos) == (other.next_unit, other.videos)
        return self.digest == entries_digest(other)


class Collection:
    """The job's images, by name."""

    def __init__(
        self,
        source: Source,
        masks: Path | None,
        records: Sequence[ImageRecord],
        absent: Sequence[ImageRecord],
        next_unit: int,
        on_disk: "_OnDisk | None" = None,
    ) -> None:
        self.source = source
        self.masks = masks
        self._table = records if isinstance(records, ImageTable) else ImageTable(sorted(records, key=lambda r: r.name))
        self._absent = absent  # once here, not found now: a disk may come back
        self._next_unit = next_unit
        self._on_disk = on_disk  # what images.json holds

    @property
    def folder(self) -> Path:
        """That the names are relative to."""
        return self.source.folder

    @property
    def video_frames(self) -> list[str]:
        """Names of the usable images that are frames of videos."""
        folders = tuple(f"{video}/" for video in self.source.videos)
        return [name for name in self.usable if name.startswith(folders)] if folders else []

    @property
    def names(self) -> Names:
        """Of all images."""
        return self._table.names

    @cached_property
    def records(self) -> Column[ImageRecord]:
        """All images."""
        return Column(self.names, self._table)

    @cached_property
    def usable(self) -> Column[Header]:
        """Images whose headers could be read."""
        headers = self._table.headers
        return Column(self.names, headers, np.frombuffer(headers.widths, np.int32) > 0)

    @property
    def signatures(self) -> Texts:
        """Of the images' files, in the order of the names."""
        return self._table.signatures

    @property
    def unit_numbers(self) -> "array[int]":
        """In the order of the names; -1 of an image that could not be read."""
        return self._table.units

    @property
    def errors(self) -> dict[str, str]:
        """Why images cannot be used."""
        return {self.names[place]: error for place, error in self._table.errors.items()}

    @cached_property
    def digest(self) -> str:
        """Of the images, their files and their units: of all that features are found by."""
        units = (None if unit < 0 else unit for unit in self.unit_numbers)
        told = zip(self.names, self.signatures, units, strict=True)
        errors = self._table.errors
        return digest_of(
            f"{name}\t{signature}\t{unit}\t{errors.get(place, '')!r}"
            for place, (name, signature, unit) in enumerate(told)
        )

    def units(self) -> Groups:
        """Unit -> its images, by name."""
        return self._units

    @cached_property
    def _units(self) -> Groups:
        return Groups(self.names, np.array(self.unit_numbers, np.int64))

    def unit_of(self, name: str) -> int | None:
        """Its unit, or None for an image that is not here or could not be read."""
        place = self.names.find(name)
        return None if place is None or (unit := self.unit_numbers[place]) < 0 else unit

    def emptied(self) -> "Collection":
        """No images, but unit numbers continue: files of earlier units are never taken for new ones."""
        return Collection(self.source, self.masks, [], [], self._next_unit)

    @classmethod
    def load(cls, workspace: Workspace) -> "Collection":
        """The collection that an earlier command left.

        Raises:
            NothingDone: no image was ever registered here.
            RecordError: the file is of another version.
            DamagedRecord: the file is damaged.
        """
        path = workspace.collection
        try:
            stored, digest = read_entries(path, _Stored, _CURE, SCHEMA, _gathered)
            give_memory_back()  # of what it was read from
        except OtherSchema as error:
            raise RecordError(f"{error}; {ANEW}") from error
        except FileNotFoundError:
            raise NothingDone(
                f"{workspace.folder}: no images yet; run `sfm-match extract --images DIR` first"
            ) from None
        folder, masks = Path(stored.folder), Path(stored.masks) if stored.masks else None
        source = Source(Path(stored.source or stored.folder), folder, tuple(stored.videos))
        on_disk = _OnDisk(stored, digest) if digest is not None else None
        return cls(source, masks, stored.images, stored.absent, stored.next_unit, on_disk)

    def save(self, workspace: Workspace) -> None:
        """Writes `images.json`, unless it holds the same already."""
        stored = _Stored(
            str(self.folder),
            str(self.masks) if self.masks else None,
            self._next_unit,
            self._table,
            self._absent,
            str(self.source.named) if self.source.videos else None,
            list(self.source.videos),
        )
        if self._on_disk is None or not self._on_disk.holds(stored) or not workspace.collection.exists():
            self._on_disk = _OnDisk(stored, write_entries(workspace.collection, stored, SCHEMA))

    def updated(self, source: Source, masks: Path | None) -> "Collection":
        """The collection after a scan of the folder: new and changed images in new units, vanished ones set aside.

        Raises:
            UsageError: no such folder, or masks of other images.
            NothingDone: no image in it.
        """
        found = self._compared(source.scanned(masks))
        if found.first is None:
            kinds = ", ".join(sorted(SUFFIXES | VIDEO_SUFFIXES))
            raise NothingDone(f"{source.named}: no image in it (looked for {kinds})")
        if masks is not None and not found.masked:
            raise UsageError(
                f"--masks {masks}: not one mask in it has the name of an image (looked for {found.first}.png and the "
                "like)"
            )
        if found.same.all() and not found.others:  # as it mostly is; of a hundred thousand images, the rest takes long
            return Collection(source, masks, self._table, self._absent, self._next_unit, self._on_disk)
        lost = {record.name: record for record in self._absent if record.header is not None}
        back = {f.name: r for f in found.others if (r := lost.get(f.name)) is not None and r.signature == f.signature}
        fresh = [file for file in found.others if file.name not in back]
        unusable = [ImageRecord(f.name, f.signature, None, None, f.error) for f in fresh if f.error is not None]
        readable = [f for f in fresh if f.error is None]
        records, good = [], []
        for file, header in zip(readable, read_headers(source.folder, [f.name for f in readable]), strict=True):
            if isinstance(header, ImageError):
                records.append(ImageRecord(file.name, file.signature, None, None, str(header)))
            else:
                good.append((file, header))
        _say_dropped({file.name: header.dropped for file, header in good if header.dropped})
        good.sort(key=lambda one: (*_shape(one[1]), one[0].name))
        for place, (file, header) in enumerate(good):
            unit = self._next_unit + place // UNIT_SIZE
            records.append(ImageRecord(file.name, file.signature, unit, header, None))
        there = {file.name for file in found.others}
        kept = [self._table[place] for place in np.flatnonzero(found.same).tolist()]
        gone = (self._table[place] for place in np.flatnonzero(~found.same & self.usable.here).tolist())
        absent = [record for record in (*lost.values(), *gone) if record.name not in there]
        next_unit = self._next_unit + -(-len(good) // UNIT_SIZE)
        return Collection(source, masks, [*kept, *back.values(), *records, *unusable], absent, next_unit, self._on_disk)

    def _compared(self, files: Iterable[ScannedFile]) -> "_Compared":
        """What of the files is known: of very many, those are not kept."""
        found, usable = _Compared(np.zeros(len(self.names), bool)), self.usable.here
        for file in files:
            place = self.names.find(file.name)
            if place is not None and usable[place] and self.signatures[place] == file.signature:
                found.same[place] = True
            else:
                found.others.append(file)
            found.masked |= file.masked
            found.first = file.name if found.first is None else min(found.first, file.name)
        found.others.sort(key=lambda one: one.name)
        return found


@dataclass
class _Compared:
    """A scan of a folder, beside what was known of it."""

    same: NDArray[np.bool_]  # (N,) which of the images are there as they were, and can be used
    others: list[ScannedFile] = field(default_factory=list)  # by name
    masked: bool = False  # any
    first: str | None = None  # name


def _say_dropped(dropped: dict[str, str]) -> None:
    """Names the images whose EXIF says what cannot be."""
    shown = "; ".join(f"{quoted(name)}: {what}" for name, what in list(dropped.items())[:_NAMED])
    if dropped:
        more = f"; and {len(dropped) - _NAMED:,} more" if len(dropped) > _NAMED else ""
        LOGGER.warning("EXIF values of %d images are not used: %s%s", len(dropped), shown, more)


def _shape(header: Header) -> tuple[float, int]:
    """Images that are near one another by this have one size at the network, whatever `--size` is."""
    width, height = header.upright_size
    return width / height, max(width, height)


def _gathered(stored: _Stored, key: str, entries: Iterable[Any]) -> Sequence[Any]:
    """What a list of images.json is in memory: `images` never all as objects. Raises ImpossibleEntry."""
    if key == "videos":
        return list(entries)
    if not 0 <= stored.next_unit <= _MOST_UNITS:
        raise ImpossibleEntry(f"{quoted(stored.next_unit)} units")
    checked = (_checked(record, stored.next_unit) for record in entries)
    if key == "absent":
        return list(checked)
    try:
        return ImageTable(checked)
    except ValueError as error:
        raise ImpossibleEntry(str(error)) from error


def _checked(record: ImageRecord, units: int) -> ImageRecord:
    name, header, unit = record.name, record.header, record.unit
    parts = name.split("/")
    if not parts[0] or ".." in parts:  # a path from the root, or one that leaves the folder
        raise ImpossibleEntry(f"{name[:80]!r} is no name of an image")
    if (header is None) != (unit is None) or (header is None) == (record.error is None):
        raise ImpossibleEntry(f"{name} has a header and an error, or neither")
    if unit is not None and not 0 <= unit < units:
        raise ImpossibleEntry(f"{name} is in unit {unit} of {units}")
    if header is not None and not (0 < header.width <= LARGEST and 0 < header.height <= LARGEST):
        raise ImpossibleEntry(f"{name} has {header.width} x {header.height} pixels")
    if header is not None and not 1 <= header.orientation <= 8:
        raise ImpossibleEntry(f"{name} has orientation {header.orientation}")
    return record


def refresh_collection(
    workspace: Workspace,
    images: Path,
    masks: Path | None,
    sampling: Sampling | None = None,
    *,
    overwrite: bool = False,
    progress: MakeProgress = no_progress,
) -> Collection:
    """The workspace's collection, brought up to date with a folder but not saved. Videos are made into frames.

    Args:
        workspace: of the job.
        images: a folder of photographs, a video, or a folder with both.
        masks: folder of masks.
        sampling: how many frames of a video; None: as before, else the default.
        overwrite: replace the images of another folder, and frames of another sampling.
        progress: makes the progress that is shown while videos are read.

    Raises:
        UsageError: the workspace holds the images of another folder, or was made by another version.
        NothingDone: no image.
    """
    images, masks = images.resolve(), masks.resolve() if masks else None
    known = _known(workspace, overwrite=overwrite)
    source, videos = find_source(images, workspace.images.resolve(), masks)
    if known is not None and source.videos and known.source.named != images and not overwrite:
        raise UsageError(_of_another(images, workspace, known))
    if videos:
        with workspace.one_part_at_a_time():  # the first part takes the frames, the others find them
            source = take_frames(source, videos, sampling, masks, progress, overwrite=overwrite)
    return _refreshed(workspace, known, source, masks, overwrite=overwrite)


def preview_collection(
    workspace: Workspace, images: Path, masks: Path | None, sampling: Sampling, place: Path, *, overwrite: bool = False
) -> Collection:
    """As `refresh_collection`, for a plan: the frames of videos are in a temporary folder, and are a few only."""
    images, masks = images.resolve(), masks.resolve() if masks else None
    source, videos = find_source(images, workspace.images.resolve(), masks)
    if videos:
        source = preview(source, videos, sampling, place, masks)
    return _refreshed(workspace, _known(workspace, overwrite=overwrite), source, masks, overwrite=overwrite)


def _known(workspace: Workspace, *, overwrite: bool) -> Collection | None:
    """What is on record. A damaged record is moved aside where the workspace is ours: the folder tells the rest."""
    try:
        return Collection.load(workspace) if workspace.collection.exists() else None
    except RecordError:
        if not overwrite:
            raise
        return None
    except DamagedRecord as error:
        if not workspace.locked:
            raise
        LOGGER.warning("%s (now %s)", error.reason, set_aside(workspace.collection).name)
        return None


def _refreshed(
    workspace: Workspace, known: Collection | None, source: Source, masks: Path | None, *, overwrite: bool
) -> Collection:
    if known is None:
        return Collection(source, masks, [], [], 0).updated(source, masks)
    updated = known.updated(source, masks)
    if known.source.named == source.named:
        return updated
    if all(updated.unit_of(name) == known.unit_of(name) for name in known.names):
        return updated  # a folder that was moved brings every image back as it was
    if not overwrite:
        raise UsageError(_of_another(source.named, workspace, known))
    return known.emptied().updated(source, masks)


def _of_another(images: Path, workspace: Workspace, known: Collection) -> str:
    return (
        f"--images {images}: {workspace.folder} holds the images of {known.source.named}; "
        "choose another --workspace, or add --overwrite to replace them"
    )
