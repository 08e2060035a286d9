"""The images of a job and the units they belong to.

A unit, once given, keeps its images: growth appends units, so that standing results stay true. An image whose file
changed gets a new unit; the row in its old unit is then nobody's.
"""

import csv
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path

from sfm_match.errors import NothingDone, SfmMatchError
from sfm_match.images import Header, ImageError, read_headers, scan
from sfm_match.store.shard import write_text
from sfm_match.workspace import Workspace

UNIT_SIZE = 64  # images; what a kill costs at most, and what a file holds
SCHEMA = 1


@dataclass(frozen=True)
class ImageRecord:
    """One image of the collection. `unit` is None when its header could not be used; `error` says why."""

    name: str
    signature: str
    unit: int | None
    header: Header | None
    error: str | None


class Collection:
    """The job's images, by name."""

    def __init__(self, folder: Path, masks: Path | None, records: list[ImageRecord], next_unit: int) -> None:
        self.folder = folder
        self.masks = masks
        self.records = {record.name: record for record in sorted(records, key=lambda r: r.name)}
        self._next_unit = next_unit

    @property
    def usable(self) -> dict[str, Header]:
        """Images whose headers could be read."""
        return {name: record.header for name, record in self.records.items() if record.header is not None}

    def units(self) -> dict[int, list[str]]:
        """Unit -> its images, by name."""
        units: dict[int, list[str]] = {}
        for record in self.records.values():
            if record.unit is not None:
                units.setdefault(record.unit, []).append(record.name)
        return dict(sorted(units.items()))

    def unit_of(self, name: str) -> int:
        unit = self.records[name].unit
        if unit is None:
            raise KeyError(name)
        return unit

    @classmethod
    def load(cls, workspace: Workspace) -> "Collection":
        """Raises NothingDone when no image was ever registered here."""
        path = workspace.collection
        if not path.exists():
            raise NothingDone(f"{workspace.folder}: no images yet; run `sfm-match extract --images DIR` first")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["schema"] != SCHEMA:
                raise SfmMatchError(f"{path}: schema {stored['schema']}, this version reads {SCHEMA}")
            records = [
                ImageRecord(
                    r["name"], r["signature"], r["unit"], Header(**r["header"]) if r["header"] else None, r["error"]
                )
                for r in stored["images"]
            ]
            masks = Path(stored["masks"]) if stored["masks"] else None
            return cls(Path(stored["folder"]), masks, records, stored["next_unit"])
        except (ValueError, KeyError, TypeError) as error:
            raise SfmMatchError(f"{path}: damaged ({error}); delete it and run again") from error

    def save(self, workspace: Workspace) -> None:
        stored = {
            "schema": SCHEMA,
            "folder": str(self.folder),
            "masks": str(self.masks) if self.masks else None,
            "next_unit": self._next_unit,
            "images": [dataclasses.asdict(record) for record in self.records.values()],
        }
        text = json.dumps(stored, ensure_ascii=False)
        if not workspace.collection.exists() or workspace.collection.read_text(encoding="utf-8") != text:
            write_text(workspace.collection, text)

    def updated(self, images: Path, masks: Path | None) -> "Collection":
        """The collection after a look at the folder: new and changed images in new units, vanished ones gone."""
        facts = scan(images, masks)
        kept = [r for f in facts if (r := self.records.get(f.name)) is not None and r.signature == f.signature]
        standing = {record.name for record in kept}
        fresh = [f for f in facts if f.name not in standing]
        records, next_unit, filled = [], self._next_unit, 0
        for fact, header in zip(fresh, read_headers(images, [f.name for f in fresh]), strict=True):
            if isinstance(header, ImageError):
                records.append(ImageRecord(fact.name, fact.signature, None, None, str(header)))
                continue
            records.append(ImageRecord(fact.name, fact.signature, next_unit + filled // UNIT_SIZE, header, None))
            filled += 1
        return Collection(images, masks, kept + records, next_unit + -(-filled // UNIT_SIZE))


def register(workspace: Workspace, images: Path, masks: Path | None) -> Collection:
    """Brings the workspace's collection up to date with a folder."""
    known = Collection.load(workspace) if workspace.collection.exists() else Collection(images, masks, [], 0)
    collection = known.updated(images.absolute(), masks.absolute() if masks else None)
    collection.save(workspace)
    return collection


def write_failed(workspace: Workspace, failed: dict[str, str]) -> None:
    """`failed.csv`: image, reason. Written even when empty, so that its absence means nothing ran."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "reason"))
    rows.writerows(sorted(failed.items()))
    write_text(workspace.failed, text.getvalue())
