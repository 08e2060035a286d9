"""`localize`: poses of photographs in the model of a workspace."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from sfm_match.commands.localizer import Answer, Localizer, Query
from sfm_match.errors import UsageError
from sfm_match.images.files import ImageError, ScannedFile, scan
from sfm_match.images.headers import read_headers
from sfm_match.job.outputs import check_output
from sfm_match.job.progress import OnProgress, Progress
from sfm_match.options.arguments import checked
from sfm_match.options.base import options_of
from sfm_match.options.keywords import LocalizeKeywords
from sfm_match.options.localize import LocalizeOptions
from sfm_match.results import Results
from sfm_match.store.shard import write_text

StrPath = str | Path
_COORDINATES = (
    "cam_from_world as in COLMAP: x_camera = R(qvec) x_world + tvec, qvec w x y z; x right, y down, z forward; pixels "
    "are raw ones, before EXIF orientation, the centre of the top-left one at (0.5, 0.5)"
)


@dataclass(frozen=True)
class QueryIntrinsics:
    """The camera of a pose, in COLMAP's terms."""

    model: str
    width: int  # raw pixels
    height: int  # raw pixels
    params: tuple[float, ...]  # in COLMAP's order, pixels
    source: str  # given, model, EXIF or estimated; the last two are refined


@dataclass(frozen=True)
class Localization:
    """What became of a query. Of one that is not localized, the pose and its camera are None."""

    name: str
    qvec: tuple[float, float, float, float] | None = None  # w, x, y, z of cam_from_world
    tvec: tuple[float, float, float] | None = None  # of cam_from_world, units of the model
    camera: QueryIntrinsics | None = None
    keypoints: int = 0  # of the query
    correspondences: int = 0  # of them, with a match that carries a point of the model
    inliers: int = 0  # of them, that agree with the pose
    error_px: float | None = None  # mean reprojection error of the inliers, raw pixels
    images: tuple[str, ...] = ()  # of the model, whose matches are inliers; those with most first
    reason: str = ""  # why it is not localized; empty where it is

    @property
    def localized(self) -> bool:
        return self.qvec is not None

    def line(self) -> str:
        if self.camera is None or self.error_px is None:
            return f"{self.name}: not localized: {self.reason}"
        return (
            f"{self.name}: {self.inliers:,} of {self.correspondences:,} keypoints agree to {self.error_px:.2f} px, "
            f"in {len(self.images)} images; {_SOURCES[self.camera.source]}"
        )

    def hloc_line(self) -> str:
        """`name qw qx qy qz tx ty tz`."""
        return " ".join((self.name, *map(repr, (*(self.qvec or ()), *(self.tvec or ())))))

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "localized": self.localized, **asdict(self)}


_SOURCES = {
    "given": "camera as given",
    "model": "camera of the model",
    "EXIF": "focal length of EXIF, refined",
    "estimated": "focal length estimated",
}


@checked
def localize(
    queries: StrPath | Sequence[StrPath],
    workspace: StrPath = "workspace",
    out: StrPath | None = None,
    options: LocalizeOptions | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = True,
    on_result: Callable[[Localization], None] = lambda _: None,
    on_progress: OnProgress | None = None,
    **keywords: Unpack[LocalizeKeywords],
) -> list[Localization]:
    """Poses of photographs in the largest model of a workspace, which stays as it is.

    Args:
        queries: files and folders. A file's name is its path as it is given, that of one in a folder is relative to
            the folder.
        workspace: folder of a job.
        out: file to write: `.json`, or `.txt` with a line for each pose as hloc writes it.
        options: how to localize.
        overwrite: replace `out` where it is there.
        quiet: no progress on stderr.
        on_result: called with each query as it is done; those of one size follow one another.
        on_progress: told how far it is.
        **keywords: the options by name; they go before.

    Returns:
        What became of each query, by name. None of them may be localized; each then has its reason.

    Raises:
        UsageError: no such query, options that are not accepted, or features that cannot be made as in the workspace.
        NothingDone: no model, or a folder without an image.
    """
    chosen = LocalizeOptions.from_mapping(options_of("localize", [LocalizeOptions], keywords), options)
    asked = _named([queries] if isinstance(queries, str | Path) else queries)
    target = None if out is None else _checked_target(Path(out), list(asked), overwrite=overwrite)
    results = Results(workspace)
    done: dict[str, Localization] = {}
    progress = Progress("localize", len(asked), "queries", quiet=quiet, on_progress=on_progress)
    try:
        for one in _each(asked, Localizer(results, chosen)):
            done[one.name] = one
            on_result(one)
            progress.advance(1)
    finally:
        progress.close()
    every = [done[name] for name in asked]
    if target is not None:
        write_text(target, _text(every, results.workspace.sparse / "0") if target.suffix == ".json" else _lines(every))
    return every


def _named(queries: Sequence[StrPath]) -> dict[str, Path]:
    """Name -> absolute path of its file. A file that is named twice counts once.

    Raises:
        UsageError: a query is not there, or two files would have one name.
        NothingDone: a folder without an image.
    """
    named: dict[str, Path] = {}
    known: set[Path] = set()
    for query in queries:
        path = Path(query)
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        found = [file.name for file in _scanned(path)] if path.is_dir() else [path.as_posix()]
        for name in found:
            file = (path / name if path.is_dir() else path).resolve()
            if file in known:
                continue
            if name in named:
                raise UsageError(f"{file}, {named[name]}: two queries of the name {name}; localize them one by one")
            named[name] = file
            known.add(file)
    if not named:
        raise UsageError("no query: name image files or folders of them")
    return dict(sorted(named.items()))


def _scanned(folder: Path) -> list[ScannedFile]:
    """Its images. Raises UsageError where one of the names cannot be used, NothingDone where there is no image."""
    files = scan(folder)
    for file in files:
        if file.error is not None:
            raise UsageError(f"{folder}/{file.name}: {file.error}")
    return files


def _checked_target(target: Path, names: list[str], *, overwrite: bool) -> Path:
    """Raises UsageError where nothing can be written there, before anything is computed."""
    if target.suffix not in (".json", ".txt"):
        raise UsageError(f"--out {target}: accepted are names that end in .json, or in .txt for hloc's lines")
    check_output(target, "--out", overwrite=overwrite)
    spaced = next((name for name in names if target.suffix == ".txt" and any(c.isspace() for c in name)), None)
    if spaced is not None:
        raise UsageError(f"--out {target}: hloc's lines hold no names with spaces, as '{spaced}'; choose a .json file")
    return target


def _each(asked: dict[str, Path], localizer: Localizer) -> Iterator[Localization]:
    names, queries = {path: name for name, path in asked.items()}, []
    headers = read_headers(Path(), [str(path) for path in asked.values()])
    for (name, path), header in zip(asked.items(), headers, strict=True):
        if isinstance(header, ImageError):
            yield Localization(name, reason=str(header))
        else:
            queries.append(Query(path, header))
    for query, answer in localizer.each(queries):
        yield _localization(names[query.path], answer)


def _localization(name: str, answer: Answer | str) -> Localization:
    if isinstance(answer, str):
        return Localization(name, reason=answer)
    found = Localization(name, keypoints=answer.keypoints, correspondences=answer.correspondences)
    pose = answer.pose
    if isinstance(pose, str):
        return replace(found, reason=pose)
    x, y, z, w = map(float, pose.cam_from_world.rotation.quat)
    tx, ty, tz = map(float, pose.cam_from_world.translation)
    camera = pose.camera
    params = tuple(map(float, camera.params))
    return replace(
        found,
        qvec=(w, x, y, z),
        tvec=(tx, ty, tz),
        camera=QueryIntrinsics(camera.model_name, camera.width, camera.height, params, str(answer.camera.source)),
        inliers=answer.inliers,
        error_px=round(pose.error, 4),
        images=answer.images,
    )


def _text(every: list[Localization], model: Path) -> str:
    stored = {"model": str(model), "coordinates": _COORDINATES, "queries": [one.as_json() for one in every]}
    return json.dumps(stored, indent=1, ensure_ascii=False) + "\n"


def _lines(every: list[Localization]) -> str:
    return "".join(f"{one.hloc_line()}\n" for one in every if one.localized)
