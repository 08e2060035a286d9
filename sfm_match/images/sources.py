"""What `--images` names: a folder of photographs, a video, or a folder with videos in it.

Where there are videos, the workspace has a folder `images` of its own: the frames of `clip.mp4` in `images/clip`, and
links to the photographs. Whatever comes after reads that folder, and so can COLMAP and a viewer.
"""

import itertools
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from sfm_match.errors import UsageError
from sfm_match.images.files import SUFFIXES as IMAGE_SUFFIXES
from sfm_match.images.files import ScannedFile, files_below, scanned, signature_of
from sfm_match.images.videos import SUFFIXES as VIDEO_SUFFIXES
from sfm_match.images.videos import (
    Sampling,
    VideoError,
    VideoHeader,
    frame_name,
    read_header,
    some_frames,
    write_frames,
)
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import MakeProgress
from sfm_match.store.records import DamagedRecord, read_json, sealed
from sfm_match.store.shard import commit, write_text

_RECORD = ".frames.json"  # in a folder of frames: which video, and how many of them. Scans pass over hidden files
_PARTIAL = ".partial-"  # a folder of frames that is not finished
_SHOWN_TO_PLANS = 6  # frames of a video


@dataclass(frozen=True)
class _Frames:
    """What the frames of a folder were taken with."""

    signature: str  # of the video
    fps: float | None
    frames: int | None


@dataclass(frozen=True)
class Source:
    """Where the images of a job are."""

    named: Path  # by the user, absolute
    folder: Path  # of images: the same, or the workspace's own
    videos: tuple[str, ...] = ()  # folders of frames
    unusable: dict[str, tuple[str, str]] = field(default_factory=dict)  # video -> its signature and what is wrong

    def scanned(self, masks: Path | None) -> Iterator[ScannedFile]:
        """Files that are images, or cannot be, in any order. Raises UsageError: no such folder."""
        if not self.videos or self.folder.is_dir():
            yield from scanned(self.folder, masks)
        for name, (signature, why) in self.unusable.items():
            yield ScannedFile(name, signature, why)


def find_source(named: Path, own: Path, masks: Path | None = None) -> tuple[Source, dict[str, Path]]:
    """The source without its frames, and the videos by the folders of their frames.

    Args:
        named: what `--images` says, absolute.
        own: folder for frames and links, where there are videos.
        masks: folder that is no source of images.

    Raises:
        UsageError: two videos, or a video and a folder, would have one name.
    """
    if named.is_file():
        if named.suffix.lower() not in VIDEO_SUFFIXES:
            kinds = ", ".join(sorted(VIDEO_SUFFIXES))
            raise UsageError(f"--images {named}: must be a folder of photographs, or a video ({kinds})")
        return Source(named, own, (named.stem,)), {named.stem: named}
    videos: dict[str, Path] = {}
    if named.is_dir():
        for name, path in files_below(named, VIDEO_SUFFIXES, _others(own, masks)):
            folder = PurePosixPath(name).with_suffix("").as_posix()
            if folder in videos or (named / folder).exists():
                raise UsageError(
                    f"--images {named}: {name}: its frames would go to a folder {folder}, and another "
                    f"{'video' if folder in videos else 'file or folder'} has that name; rename one"
                )
            videos[folder] = Path(path)
    return Source(named, own if videos else named, tuple(videos)), videos


def take_frames(
    source: Source,
    videos: dict[str, Path],
    sampling: Sampling | None,
    masks: Path | None,
    progress: MakeProgress,
    *,
    overwrite: bool = False,
) -> Source:
    """Writes the frames of the videos that have none yet, and links to the photographs beside them.

    Args:
        source, videos: of `find_source`.
        sampling: how many frames; None: those that are there, else the default.
        masks: folder that is no source of images.
        progress: makes the progress that is shown.
        overwrite: replace the frames of another sampling.

    Raises:
        UsageError: frames are there that were sampled otherwise.
    """
    unusable: dict[str, tuple[str, str]] = {}
    _remove_frames_of_others(source.folder, videos)
    for folder, path in videos.items():
        signature = signature_of(path)
        try:
            _take(path, source.folder / folder, signature, sampling, progress, overwrite=overwrite)
        except VideoError as error:
            unusable[_shown_name(source, path)] = signature, str(error)
    if source.named.is_dir():
        _remove_links(source.folder, _link_photographs(source.named, source.folder, _others(source.folder, masks)))
    return Source(source.named, source.folder, source.videos, unusable)


def _shown_name(source: Source, path: Path) -> str:
    """Of a video, as an image's would be."""
    return path.name if path == source.named else path.relative_to(source.named).as_posix()


def _remove_frames_of_others(own: Path, videos: Collection[str]) -> None:
    """Of videos that are gone: as with a photograph that is gone, nothing of them is used any more."""
    for record in sorted(own.rglob(_RECORD)):
        folder = record.parent.relative_to(own).as_posix()
        if folder.replace(_PARTIAL, "") not in videos:
            shutil.rmtree(record.parent)


def _take(
    path: Path, folder: Path, signature: str, sampling: Sampling | None, progress: MakeProgress, *, overwrite: bool
) -> None:
    before = _read_record(folder)
    if before is not None and before["signature"] != signature:  # another video of this name
        before = None
    if before is not None and sampling is None:
        return
    sampling = sampling or Sampling()
    asked: dict[str, object] = {"signature": signature, "fps": sampling.fps, "frames": sampling.frames}
    if before == asked:
        return
    if before is not None and not overwrite:
        raise UsageError(
            f"{folder}: frames of {path.name} were taken with {_shown(before)}, now {_shown(asked)}; give that again, "
            "add --overwrite to replace them, or choose another --workspace"
        )
    partial = folder.with_name(_PARTIAL + folder.name)
    if _read_record(partial) != asked:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_text(partial / _RECORD, json.dumps(sealed(asked)))
    header = read_header(path)
    count = sampling.count(header.frames, header.rate)
    shown = progress("frames", count, "frames")
    try:
        write_frames(path, partial, header, count, shown.advance)
    finally:
        shown.close()
    shutil.rmtree(folder, ignore_errors=True)
    commit(partial, folder)


def _read_record(folder: Path) -> dict[str, object] | None:
    """What the frames of a folder were taken with; None where there are none."""
    try:
        return asdict(read_json(folder / _RECORD, _Frames, "its frames are taken again"))
    except FileNotFoundError:
        return None
    except DamagedRecord as error:
        LOGGER.warning("%s", error)
        return None


def _shown(record: dict[str, object]) -> str:
    given = [f"--{name} {record[name]}" for name in ("fps", "frames") if record.get(name) is not None]
    return " ".join(given) or "neither --fps nor --frames"


def _link_photographs(named: Path, folder: Path, others: Sequence[Path]) -> set[Path]:
    """Brings links to all photographs below `named` to `folder`. Returns them."""
    linked = set()
    for name, path in files_below(named, IMAGE_SUFFIXES, others):
        linked.add(folder / name)
        link(folder / name, Path(path))
    return linked


def _remove_links(folder: Path, kept: Collection[Path]) -> None:
    """Takes away the links to photographs that are gone."""
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, file) for file in files):
            if path.is_symlink() and path not in kept:
                path.unlink()


def link(path: Path, target: Path) -> None:
    """A symbolic link, or a copy where the system has none; nothing, where something is there."""
    if path.is_symlink() or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target)
    except OSError:  # Windows asks for a right that few users have
        shutil.copy2(target, path)


def preview(source: Source, videos: dict[str, Path], sampling: Sampling, place: Path, masks: Path | None) -> Source:
    """As `take_frames`, for a plan: as many frames, but all of them links to a few. Finished ones are linked.

    Args:
        source, videos, sampling, masks: as there.
        place: an empty folder.
    """
    unusable: dict[str, tuple[str, str]] = {}
    for folder, path in videos.items():
        finished = source.folder / folder
        if _read_record(finished) is not None:
            for frame in finished.glob("*.jpg"):
                link(place / folder / frame.name, frame)
            continue
        try:
            _few(path, place, folder, sampling)
        except VideoError as error:
            unusable[_shown_name(source, path)] = signature_of(path), str(error)
    if source.named.is_dir():
        _link_photographs(source.named, place, _others(source.folder, masks))
    return Source(source.named, place, source.videos, unusable)


def _few(path: Path, place: Path, folder: str, sampling: Sampling) -> None:
    header = read_header(path)
    count = sampling.count(header.frames, header.rate)
    few = []
    for number, content in enumerate(some_frames(path, header, min(count, _SHOWN_TO_PLANS))):
        few.append(place / f".{folder}-{number}.jpg")
        few[-1].parent.mkdir(parents=True, exist_ok=True)
        few[-1].write_bytes(content)
    if not few:
        raise VideoError("not one frame can be decoded")
    for number, target in zip(range(count), itertools.cycle(few), strict=False):
        link(place / folder / frame_name(_time(header, number, count), number), target)


def _time(header: VideoHeader, number: int, count: int) -> float:
    return number * header.frames / count / header.rate


def _others(own: Path, masks: Path | None) -> list[Path]:
    return [folder for folder in (own, masks) if folder is not None]
