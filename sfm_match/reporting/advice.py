"""The plain verdict of a report, and what to do next: from facts alone."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfm_match.job.stage_record import ERROR
from sfm_match.reporting.facts import Facts
from sfm_match.reporting.matching import Matching

GOOD, LOOK, BAD, UNFINISHED = "good", "look", "bad", "unfinished"
FEW_KEYPOINTS = 200  # of an image: COLMAP registers an image by 30 points, and most keypoints have no partner
LARGE_ERROR = 1.5  # pixels, the mean of a model
FEW_REGISTERED = 0.9  # share of the images
_WEAK_BRIDGE = 50  # inliers
CURES = {  # kind of reason in unregistered.csv -> what to try
    "not usable": "The files cannot be read or are too small: see the failures below.",
    "no accepted pair": "Little overlap or texture: try --quality high; for pictures on their sides "
    "or from a drone, --turns; or take photographs in between.",
    "too few connected": "Take photographs in between, match more pairs, or accept small models with "
    "--min-model-size 2.",
    "not placed": "Their geometry is weak: try known intrinsics (--camera-params) or --mapper global.",
    "too few points": "Little overlap or texture: try --quality high.",
}


@dataclass(frozen=True)
class Verdict:
    """How it went, in a sentence or two."""

    level: str  # GOOD, LOOK, BAD or UNFINISHED
    title: str
    lines: list[str]


@dataclass(frozen=True)
class Advice:
    """What to do, why, and the command where there is one."""

    text: str
    command: str = ""


def verdict(facts: Facts) -> Verdict:
    """The first thing a reader wants to know."""
    odd = [f"Model {number}: {sentence}." for number, one in enumerate(facts.models) for sentence in one["odd"]]
    lines = [*(f"{problem}." for problem in facts.problems), *odd]
    total, inside = len(facts.names), facts.registered
    error = _error(facts)
    if inside == 0:
        stage = facts.next_stage
        if error is not None or facts.problems:
            return Verdict(BAD, "There is no model.", [*([error] if error is not None else []), *lines])
        return Verdict(UNFINISHED, f"The job is not finished: {stage} is next.", [*_progress(facts), *lines])
    models = len(facts.measured.scenes) if facts.measured is not None else 0
    where = "one model" if models == 1 else f"{models} models"
    title = f"{inside:,} of {total:,} images are registered, in {where}."
    if lines:
        return Verdict(LOOK, title, [*(["Not all of it is to be trusted."] if odd else []), *lines])
    if inside < FEW_REGISTERED * total or models > 1:
        return Verdict(LOOK, title, [])
    return Verdict(GOOD, title, ["Nothing speaks against the model."])


def _error(facts: Facts) -> str | None:
    """Why a stage could do nothing, where one could not."""
    recorded = next((str(one[ERROR]) for one in facts.stages.values() if ERROR in one), None)
    if recorded is None and facts.matching is not None and facts.unregistered and not facts.registered:
        accepted = facts.matching.verdicts.get("accepted", len(facts.matching.accepted))
        return f"{accepted:,} pairs are accepted; none of the images could be registered."
    if recorded is None:
        return None
    place, _, rest = recorded.partition(": ")
    return rest if rest and Path(place).name == facts.workspace.resolve().name else recorded  # its head names it


def _progress(facts: Facts) -> list[str]:
    lines = [f"{facts.with_features:,} of {len(facts.names):,} images have features."]
    if facts.listed is not None:
        lines.append(f"{facts.listed - (facts.unmatched or 0):,} of {facts.listed:,} pairs are matched.")
    return lines


def advice(facts: Facts) -> list[Advice]:
    """What to do next, the most useful first."""
    return [*_repairs(facts), *_next(facts), *_outside(facts), *_graph(facts), *_quality(facts), *_headers(facts)]


def _command(facts: Facts, words: str) -> str:
    return f"sfm-match {words} --workspace {shlex.quote(str(facts.workspace))}"


def _run(facts: Facts) -> str:
    return _command(facts, f"run --images {shlex.quote(str(facts.folder))}") if facts.folder is not None else ""


def _repairs(facts: Facts) -> Iterator[Advice]:
    if facts.problems:
        text = "Parts of the workspace cannot be read. Run again: what is damaged is moved aside and made anew."
        yield Advice(text, _run(facts))
    if facts.folder is not None and not facts.folder.is_dir():
        yield Advice(f"The photographs are not in {facts.folder} any more, so that none are shown here.")


def _next(facts: Facts) -> Iterator[Advice]:
    stage = facts.next_stage
    if facts.registered or stage is None or _error(facts) is not None:
        return
    yield Advice(f"Go on with the stage {stage}; a run does it and all that follow.", _run(facts))


def _outside(facts: Facts) -> Iterator[Advice]:
    """Of images in no model."""
    kinds = Counter(reason.partition(":")[0] for reason in facts.unregistered.values())
    for kind, number in kinds.most_common():
        images = f"{number:,} image{'s' if number > 1 else ''}"
        yield Advice(f"{images} in no model, {kind}. {CURES.get(kind, '')}".strip())


def _graph(facts: Facts) -> Iterator[Advice]:
    """Of components and bridges."""
    matching = facts.matching
    if matching is None:
        return
    sizes, tried = matching.sizes, sum(matching.verdicts.values())
    every = len(facts.names) * (len(facts.names) - 1) // 2
    for size in sizes[1:4]:
        text = f"{size:,} images form a component of their own: no accepted pair connects them to the others."
        if tried >= every:
            yield Advice(f"{text} Every pair was tried: take photographs in between.")
        else:
            yield Advice(f"{text} Look for pairs between the parts, then run again.", _repair(facts))
    weak = [one for one in matching.bridges if one.inliers < _WEAK_BRIDGE and one.behind > 1]
    for bridge in weak[:3]:
        first, second = (facts.names[i] for i in bridge.pair)
        text = (
            f"{first} and {second} alone ({bridge.inliers} inliers) connect {bridge.behind:,} images with the others. "
            "Photographs in between would hold the model together."
        )
        yield Advice(text, "" if tried >= every else _repair(facts))


def _repair(facts: Facts) -> str:
    return _command(facts, "pairs --strategy repair")


def _quality(facts: Facts) -> Iterator[Advice]:
    counted = facts.keypoints[facts.keypoints >= 0]
    few = int((counted < FEW_KEYPOINTS).sum())
    if few:
        text = f"{few:,} image{'s have' if few > 1 else ' has'} fewer than {FEW_KEYPOINTS} keypoints"
        yield Advice(f"{text}: blurred, dark, smooth or small. A larger --size finds more in large photographs.")
    for number, model in enumerate(facts.models):
        if model["reprojection_error"] > LARGE_ERROR:
            error = f"Model {number} has a reprojection error of {model['reprojection_error']:.2f} px"
            yield Advice(f"{error}: look at the residuals below; another --camera-model may fit the lens.")
    if isinstance(facts.matching, Matching) and facts.measured is not None and len(facts.measured.scenes) > 1:
        inside = np.unique(facts.matching.component[facts.measured.per_image.model >= 0])
        if len(inside) == 1:
            yield Advice("Images of several models are connected by accepted pairs, but one model could not hold them.")


def _headers(facts: Facts) -> Iterator[Advice]:
    """Of what the photographs do not tell."""
    headers = facts.headers.values()
    if not headers or not facts.registered:
        return
    if not any(header.location is not None for header in headers):
        yield Advice("No photograph has GPS: the scale and the axes of the model are arbitrary.")
    if not any(header.focal for header in headers) and facts.record.get("import", {}).get("camera_params") is None:
        yield Advice(
            "No photograph has a focal length in EXIF, so that it was estimated. Originals from the camera, or "
            "--camera-params, are safer."
        )
