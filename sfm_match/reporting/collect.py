"""Facts as the JSON that the page reads. Large arrays are bytes, of types that `page.js` knows; so are photographs.

They become base64 a piece at a time, where the page is written.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_match import __version__
from sfm_match.reporting.advice import advice, verdict
from sfm_match.reporting.facts import Facts
from sfm_match.reporting.matching import Matching
from sfm_match.reporting.models import GpsPlan, Measured, PerImage, ResidualField, Scene
from sfm_match.reporting.packing import numbers, or_none, packed
from sfm_match.store.columns import Computed

_BINS = 24
_SETTINGS = ("extract", "pairs", "match", "import", "reconstruct")  # keys of the record
_MADE_BY = "made by"


def content(facts: Facts, made: str) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        facts: of the workspace.
        made: the time, for people.
    """
    histograms = _histograms(facts)  # first: they take several times the memory of their numbers
    return {
        "about": {
            "version": __version__,
            "made": made,
            "workspace": str(facts.workspace.resolve()),
            "photographs": str(facts.folder) if facts.folder is not None else None,
        },
        "verdict": asdict(verdict(facts)),
        "advice": [asdict(one) for one in advice(facts)],
        "summary": _summary(facts),
        "problems": facts.problems,
        "cuts": _cuts(facts),
        "images": _images(facts),
        "pairs": _pairs(facts.matching) if facts.matching is not None else None,
        "drawn": _drawn(facts),
        "models": _models(facts),
        "fields": [_field(one) for one in facts.measured.fields] if facts.measured is not None else [],
        "gps": [_plan(one) for one in facts.measured.gps] if facts.measured is not None else [],
        "histograms": histograms,
        "stages": [{"stage": stage, **one} for stage, one in facts.stages.items()],
        "settings": {stage: facts.record[stage] for stage in _SETTINGS if isinstance(facts.record.get(stage), dict)},
        "versions": facts.record.get(_MADE_BY, {}),
    }


def _summary(facts: Facts) -> list[list[str]]:
    """Names and values, for people."""
    rows = [
        ["Images", f"{len(facts.names):,}"],
        ["With features", f"{facts.with_features:,}"],
        ["Registered", f"{facts.registered:,}"],
    ]
    if facts.matching is not None:
        judged = sum(facts.matching.verdicts.values())
        accepted = facts.matching.verdicts.get("accepted", len(facts.matching.accepted))
        rows.append(["Accepted pairs", f"{accepted:,} of {judged:,}" if judged else f"{accepted:,}"])
        rows.append(["Components", f"{len(facts.matching.sizes):,}"])
    elif facts.listed is not None:
        rows.append(["Pairs", f"{facts.listed:,}"])
    if facts.models:
        best = facts.models[0]
        rows += [
            ["Models", f"{len(facts.models):,}"],
            ["Points", f"{sum(model['points'] for model in facts.models):,}"],
            ["Track length", f"{best['track_length']:.2f}"],
            ["Reprojection error", f"{best['reprojection_error']:.2f} px"],
        ]
        if best.get("gps"):
            rows.append(["GPS", str(best["gps"])])
    seconds = sum(one.get("seconds", 0.0) for one in facts.stages.values())
    return [*rows, ["Time of all stages", f"{seconds:,.1f} s"]] if seconds else rows


def _cuts(facts: Facts) -> list[str]:
    """What is not shown as a whole, a sentence each."""
    cuts = []
    small, drawn, matching, measured = facts.thumbnails, facts.drawn, facts.matching, facts.measured
    if small is not None and small.pictures:
        cuts.append(f"Photographs are at most {small.side} pixels wide or high.")
    if small is not None and small.left_out:
        cuts.append(f"{small.left_out:,} photographs are left out.")
    if small is not None and small.missing:
        cuts.append(f"{small.missing:,} photographs could not be read again.")
    if drawn is not None and len(drawn.keypoints) < (total := int(facts.keypoints.clip(0).sum())):
        cuts.append(f"{len(drawn.keypoints):,} of {total:,} keypoints are drawn, the strongest of each image.")
    if (
        drawn is not None
        and matching is not None
        and len(drawn.matches) < (every := int(matching.accepted[:, 2].sum()))
    ):
        cuts.append(f"{len(drawn.matches):,} of {every:,} inlier matches are drawn.")
    if matching is not None and len(matching.accepted) < matching.verdicts.get("accepted", 0):
        cuts.append(f"{len(matching.accepted):,} accepted pairs are shown, those with most inliers.")
    verdicts = matching.verdicts if matching is not None else {}
    rejected = sum(verdicts.values()) - verdicts.get("accepted", 0)
    if matching is not None and not len(matching.rejected) and rejected:
        cuts.append(f"The {rejected:,} rejected pairs are counted, and not shown one by one.")
    shown, points = (
        (sum(len(one.points) for one in measured.scenes), sum(one.count for one in measured.scenes))
        if (measured is not None)
        else (0, 0)
    )
    if shown < points:
        cuts.append(f"{shown:,} of {points:,} points are drawn; points far from all others are left out.")
    if measured is not None and measured.every > 1:
        cuts.append(f"Errors of images are measured on one in {measured.every} observations.")
    return cuts


def _images(facts: Facts) -> dict[str, Any]:
    names, count = facts.names, len(facts.names)
    measured = facts.measured.per_image if facts.measured is not None else PerImage.of(count)
    nothing = np.zeros(count, np.int64)
    matching = facts.matching
    pictures = facts.thumbnails.pictures if facts.thumbnails is not None else {}
    sizes = np.zeros((count, 2), np.int32)
    for place, name in enumerate(names):
        if (header := facts.headers.get(name)) is not None:
            sizes[place] = header.upright_size

    def column(of: Callable[[str], Any]) -> Computed[Any]:
        return Computed(count, lambda place: of(names[place]))

    return {  # of very many images, each entry is made where the page is written
        "name": names,
        "width": numbers(sizes[:, 0]),
        "height": numbers(sizes[:, 1]),
        "picture": column(pictures.get),
        "keypoints": Computed(count, lambda place: found if (found := facts.keypoints.item(place)) >= 0 else None),
        "accepted": numbers(matching.partners if matching is not None else nothing),
        "tried": numbers(matching.tried if matching is not None else nothing),
        "component": numbers(matching.component if matching is not None else nothing - 1),
        "model": numbers(measured.model),
        "points": numbers(measured.points),
        "error": or_none(measured.error, 3),
        "gps": or_none(measured.gps, 2),
        "why": column(lambda name: facts.failed.get(name) or facts.unregistered.get(name)),
        "failed": column(facts.failed.__contains__),
    }


def _pairs(matching: Matching) -> dict[str, Any]:
    bridges = [[*one.pair, one.inliers, one.behind] for one in matching.bridges]
    return {
        "accepted": packed(matching.accepted.astype(np.int32, copy=False)),  # none below 0: the page reads uint32
        "rejected": packed(matching.rejected.astype(np.int32, copy=False)),
        "verdicts": matching.verdicts,
        "bridges": bridges,
        "sizes": matching.sizes,
    }


def _drawn(facts: Facts) -> dict[str, NDArray[np.uint8]] | None:
    if facts.drawn is None:
        return None
    return {name: packed(getattr(facts.drawn, name)) for name in ("starts", "keypoints", "match_starts", "matches")}


def _models(facts: Facts) -> list[dict[str, Any]]:
    scenes = facts.measured.scenes if facts.measured is not None else []
    numbers = [*facts.models, *[{}] * max(0, len(scenes) - len(facts.models))]
    return [{**_scene(scene), "numbers": one} for scene, one in zip(scenes, numbers, strict=False)]


def _scene(scene: Scene) -> dict[str, Any]:
    return {
        "count": scene.count,
        "low": scene.low,
        "high": scene.high,
        "points": packed(scene.points),
        "colours": packed(scene.colours),
        "up": scene.up,
        "images": scene.images,
        "centres": packed(scene.centres),
        "axes": packed(scene.axes),
        "halves": packed(scene.halves),
    }


def _field(field: ResidualField) -> dict[str, Any]:
    return {
        "camera": field.camera,
        "model": field.model,
        "size": field.size,
        "observations": field.observations,
        "count": field.count.tolist(),
        "mean": np.round(field.mean, 4).tolist(),
    }


def _plan(plan: GpsPlan) -> dict[str, Any]:
    return {
        "model": plan.model,
        "images": plan.images,
        "gps": np.round(plan.gps, 2).tolist(),
        "fitted": np.round(plan.fitted, 2).tolist(),
    }


def _histograms(facts: Facts) -> list[dict[str, Any]]:
    measured, matching = facts.measured or Measured(PerImage.of(0)), facts.matching
    inliers = matching.accepted[:, 2] if matching is not None else np.empty(0, np.int64)
    tried = [
        ("Keypoints of an image", "keypoints", "images", facts.keypoints[facts.keypoints >= 0]),
        ("Inliers of an accepted pair", "inliers", "pairs", inliers),
        ("Track length", "images that see a point", "points", measured.track_lengths),
        ("Reprojection error of a point", "pixels", "points", measured.point_errors),
        ("Reprojection error of an image", "pixels", "images", measured.per_image.error),
    ]
    made = [_histogram(title, unit, of, np.asarray(values, np.float64)) for title, unit, of, values in tried]
    return [one for one in made if one is not None]


def _histogram(title: str, unit: str, of: str, values: NDArray[np.float64]) -> dict[str, Any] | None:
    """The last bin takes the largest half per cent up, however far they reach. None where all are equal."""
    finite = np.isfinite(values)
    values = values if finite.all() else values[finite]
    if not len(values) or values.min() == values.max():
        return None
    top = float(np.percentile(values, 99.5))
    whole = bool((values == np.round(values)).all())
    low = float(values.min()) if whole else 0.0
    each = whole and top - low < _BINS  # a bin for each number
    single = np.arange(low, np.ceil(top) + 2) - 0.5
    edges = single if each else np.linspace(low, max(top, low + 1e-9), _BINS + 1)
    counts = np.histogram(values.clip(edges[0], edges[-1]), edges)[0]
    return {
        "title": title,
        "unit": unit,
        "of": of,
        "median": round(float(np.median(values)), 3),
        "most": round(float(values.max()), 3),
        "first": low if each else round(float(edges[0]), 4),
        "last": float(edges[-1] - 0.5) if each else round(float(edges[-1]), 4),
        "edges": np.round(edges, 4).tolist(),
        "counts": counts.tolist(),
    }
