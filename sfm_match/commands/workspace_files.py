"""Whether every file of a workspace is as it was written: what `doctor --workspace` says."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfm_match.colmap import queries
from sfm_match.colmap.database_check import trouble
from sfm_match.errors import SfmMatchError
from sfm_match.images.collection import Collection
from sfm_match.images.reasons import read_table
from sfm_match.job.stage_record import stages_on_record
from sfm_match.job.workspace import Workspace
from sfm_match.store.features import check_unit, read_index
from sfm_match.store.matches import BLOCK_FILE, check_block, read_head
from sfm_match.store.model_record import NAME, changed, read_model_record
from sfm_match.store.pairs import read_pair_table
from sfm_match.store.records import DamagedRecord
from sfm_match.store.shard import DAMAGED, ShardError

Record = Mapping[str, Any] | None


@dataclass(frozen=True)
class Check:
    """What was found of a file, or of the files of a kind."""

    what: str
    line: str
    trouble: bool = False
    paths: tuple[Path, ...] = ()  # of what is damaged
    ours: bool = False  # whether it is made again, once it is out of the way


def checks(place: Workspace) -> Iterator[Check]:
    """Looks at every file; nothing is written, and no lock is needed."""
    known, *found = _record(place)
    yield from found
    if known is None and not found[0].ours:  # another version's: what it wrote is not known
        return
    collection, *found = _images(place)
    yield from found
    signatures = {} if collection is None else {name: one.signature for name, one in collection.records.items()}
    sizes = {} if collection is None else {n: (one.width, one.height) for n, one in collection.usable.items()}
    counts: dict[str, tuple[str, int]] = {}  # of images whose features are whole: signature, keypoints
    yield from _shards(place.features, "features", lambda path: _unit(path, sizes, signatures, counts))
    yield from _shards(place.matches, "matches", lambda path: _block(path, counts))
    names = [] if collection is None else list(collection.records)
    for path in (place.pairs, place.added_pairs) if names else ():
        yield from _file(place, known, path, lambda path: len(read_pair_table(path, names)), "pairs")
    for path in (place.failed, place.unregistered):
        yield from _table(place, known, path)
    yield from _file(place, known, place.stages, lambda _: len(stages_on_record(place)), "stages")
    yield from _database(place, known)
    yield from _models(place)
    if place.colmap_log.is_file():
        yield Check(place.colmap_log.name, f"{place.colmap_log.stat().st_size:,} bytes, what COLMAP says of itself")
    aside = sorted(path.name for path in place.folder.rglob(f"*{DAMAGED}*"))
    if aside:
        yield Check("set aside", f"{', '.join(aside[:4])}{' ...' * (len(aside) > 4)}; of no use any more")


def _record(place: Workspace) -> tuple[Any, ...]:
    """The record, or None, and what there is to say."""
    try:
        known = place.read_record()
    except SfmMatchError as error:
        if isinstance(error.__cause__, DamagedRecord):
            return None, Check(place.record.name, str(error), True, (place.record,), ours=True)
        return None, Check("workspace", str(error), True)
    return (known, *([Check(place.record.name, f"{len(known) - 1} entries")] if known else []))


def _images(place: Workspace) -> tuple[Any, ...]:
    """The collection, or None, and what there is to say."""
    if not place.collection.exists():
        return (None,)
    try:
        collection = Collection.load(place)
    except SfmMatchError as error:
        ours = isinstance(error, DamagedRecord)
        return None, Check(place.collection.name, str(error), True, (place.collection,), ours)
    return collection, Check(place.collection.name, f"{len(collection.records):,} images")


def _unit(
    path: Path,
    sizes: Mapping[str, tuple[int, int]],
    signatures: Mapping[str, str],
    counts: dict[str, tuple[str, int]],
) -> None:
    head = read_index(path)
    current = {name for name in head.counts if signatures.get(name) == head.signatures[name]}
    check_unit(path, {name: sizes[name] for name in current & sizes.keys()})
    counts.update({name: (head.signatures[name], head.counts[name]) for name in current})


def _block(path: Path, counts: Mapping[str, tuple[str, int]]) -> None:
    images = read_head(path).images
    check_block(path, {name: n for name, (signature, n) in counts.items() if images.get(name) == signature})


def _shards(folder: Path, kind: str, check: Callable[[Path], None]) -> Iterator[Check]:
    files = sorted(path for path in folder.glob("*.h5") if kind == "features" or BLOCK_FILE.fullmatch(path.name))
    damaged = []
    for path in files:
        try:
            check(path)
        except ShardError as error:
            damaged.append(error)
    yield Check(kind, f"{len(files):,} files, {len(damaged):,} damaged")
    yield from (Check(kind, f"{one.path}: {one.reason}", True, (one.path,), ours=True) for one in damaged)


def _file(place: Workspace, known: Record, path: Path, read: Callable[[Path], int], unit: str) -> Iterator[Check]:
    if not path.exists():
        return
    try:
        count = read(path)
    except SfmMatchError as error:
        yield Check(path.name, str(error), True, (path,), ours=True)
        return
    changed = known is not None and place.changed(path)
    said = "; changed since it was written, and taken as it is" if changed else ""
    yield Check(path.name, f"{count:,} {unit}{said}")


def _table(place: Workspace, known: Record, path: Path) -> Iterator[Check]:
    """Nobody edits these on purpose."""
    if known is not None and place.changed(path):
        again = "" if path == place.failed else "; `sfm-match reconstruct --overwrite` writes it again"
        yield Check(path.name, f"{path}: changed since it was written{again}", True, (path,), ours=path == place.failed)
    else:
        yield from _file(place, known, path, lambda path: len(read_table(path)), "images")


def _database(place: Workspace, known: Record) -> Iterator[Check]:
    path = place.database
    if not path.exists():
        return
    wrong = trouble(path)
    if isinstance(wrong, queries.DamagedDatabase):
        ours = known is None or "import" in known  # else somebody else's may be there
        yield Check(path.name, f"{path}: {wrong.reason}", True, (path, *queries.journals(path)), ours=ours)
    elif wrong is not None:  # in use, or of a newer COLMAP: it stays where it is
        yield Check(path.name, str(wrong), True)
    elif queries.read_record(path, "inputs") is None:
        yield Check(path.name, f"{path}: not made by sfm-match", True)
    else:
        counts = queries.count(path)
        said = "; changed since import, and taken as it is" if queries.is_edited(path) else ""
        yield Check(path.name, f"{counts.images:,} images, {counts.verified:,} verified pairs{said}")


def _models(place: Workspace) -> Iterator[Check]:
    sparse = place.sparse
    if not sparse.exists():
        return
    try:
        files = read_model_record(sparse).get("files", {})
    except DamagedRecord as error:
        yield Check(sparse.name, error.reason, True, (sparse,), ours=True)
        return
    if not files:
        yield Check(sparse.name, f"{sparse}: not made by sfm-match, or {NAME} is gone", True)
        return
    wrong = [str(sparse / name) for name in changed(sparse, files)]
    if wrong:
        yield Check(sparse.name, f"{', '.join(wrong)}: not as written", True, (sparse,), ours=True)
    else:
        yield Check(sparse.name, f"{len(files)} files")
