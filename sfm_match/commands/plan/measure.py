"""What a stage costs here: the first stages of a job over a few of the photographs, in a temporary folder."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from pairs.exhaustive import exhaustive
from pairs.prune import KEYPOINTS, KeypointSubsets, scored
from sfm_match import api
from sfm_match.errors import NothingDone
from sfm_match.job.cores import cores
from sfm_match.job.progress import StageReport
from sfm_match.options.run import RunOptions
from sfm_match.refine.keypoints import UNIT
from sfm_match.signals import temporary_folder

PHOTOGRAPHS = 6  # half of them neighbours by name, which are likely to match


@dataclass(frozen=True)
class Measured:
    """Costs of a unit of work. None where nothing could be measured."""

    seconds_per_image: float | None = None
    seconds_per_match: float | None = None
    seconds_per_verification: float | None = None
    seconds_per_adjustment: float = 0.0  # of keypoints, a pair that takes part; 0 where none did
    seconds_per_score: float | None = None  # of pruning
    keypoints_per_image: int = 0
    feature_bytes: int = 0
    match_bytes: int = 0
    database_bytes_per_image: int = 0
    database_bytes_per_pair: int = 0
    peak_memory: int = 0  # bytes of this process, measured after the stages


def sample_of(names: Sequence[str], count: int = PHOTOGRAPHS) -> list[str]:
    """Some neighbours from the middle, and others from all over."""
    if len(names) <= count:
        return list(names)
    middle, near = len(names) // 2, count // 2
    spread = [names[i * (len(names) - 1) // (count - near - 1)] for i in range(count - near)]
    return list(dict.fromkeys([*names[middle : middle + near], *spread]))


def measure(folder: Path, names: Sequence[str], options: RunOptions) -> Measured:
    """Extracts, matches and verifies a few images with these options.

    Raises:
        UsageError, NothingDone: as `run` would, where the model or the device is not there.
    """
    with temporary_folder("sfm-match-plan-") as place:
        photographs, workspace = place / "images", place / "workspace"
        photographs.mkdir()
        for number, name in enumerate(sample_of(names)):
            shutil.copyfile(folder / name, photographs / f"{number:03d}{Path(name).suffix}")
        reports: dict[str, StageReport] = {}
        try:
            api.run(
                photographs,
                workspace,
                extract=replace(options.extract, masks=None),  # for other names
                pairs="exhaustive",
                match=options.match,
                import_=replace(options.import_, camera_mode="auto"),  # one for all would not fit a few images
                reconstruct=replace(options.reconstruct, mapper="none"),
                on_report=lambda report: reports.update({report.stage: report}),
            )
        except NothingDone:
            if "extract" not in reports:  # not one image could be used, or there is no model: the job would say so, too
                raise
        return _measured(reports, workspace)


def _measured(reports: dict[str, StageReport], workspace: Path) -> Measured:
    def each(stage: str, *left_out: str) -> float | None:
        report = reports.get(stage)
        if report is None or not report.done:
            return None
        return (report.seconds - sum(report.spent.get(what, 0.0) for what in left_out)) / report.done

    images = max(reports["extract"].done, 1) if "extract" in reports else 1
    pairs = max(reports["match"].done, 1) if "match" in reports else 1
    database = workspace / "database.db"
    stored = database.stat().st_size if database.exists() else 0
    keypoints = reports["extract"].facts["keypoints"] // images if "extract" in reports else 0
    per_image = 8 * keypoints
    features = _size(workspace / "features") // images
    imported = reports.get("import")
    aligned = imported.facts.get("adjusted", {}).get("pairs", 0) if imported is not None else 0
    at_once = cores()
    busy = min(at_once, -(-aligned // UNIT)) / at_once  # of them, with these few units
    return Measured(
        each("extract", "load"),
        each("match", "plan"),
        each("import", "write", "adjust"),
        busy * imported.spent.get("adjust", 0.0) / aligned if imported is not None and aligned else 0.0,
        _seconds_per_score(features // max(2 * keypoints, 1)),
        keypoints,
        features,
        _size(workspace / "matches") // pairs,
        per_image,  # keypoints are the bulk of what does not depend on pairs
        max(stored - per_image * images, 0) // pairs,
        peak_memory(),
    )


def _seconds_per_score(width: int) -> float:
    """Of pruning, with random descriptors and places."""
    count = 24
    rng = np.random.default_rng(0)
    descriptors = rng.normal(0, width**-0.5 if width else 0, (count, 1, KEYPOINTS, width)).astype(np.float16)
    places = rng.uniform(-0.5, 0.5, (count, KEYPOINTS, 2)).astype(np.float16)
    sketches = KeypointSubsets(descriptors, places, np.full(count, KEYPOINTS))
    start = time.perf_counter()
    with threadpool_limits(1, "blas"):
        pairs = sum(len(block) for block, _ in scored(exhaustive(count), sketches, cores()))
    return (time.perf_counter() - start) / pairs


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


def peak_memory() -> int:
    """Bytes that this process has used at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
