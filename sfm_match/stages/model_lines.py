"""What a reconstruction says to people: the result first, then each model, then what is odd; a line each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfm_match.stages.reconstruct import ModelSummary

_SHOWN = 8  # models; report.html has all


def model_lines(
    models: "Sequence[ModelSummary]", registered: int, images: int, unregistered: Mapping[str, int]
) -> Iterator[str]:
    """Of a job's models.

    Args:
        models: the largest first; at least one.
        registered: images in any of them.
        images: with features.
        unregistered: kind of reason -> images in no model.
    """
    one = len(models) == 1
    yield f"{registered:,}/{images:,} images registered, {_numbers(models[0]) if one else f'{len(models):,} models'}"
    for number, model in enumerate(models[:_SHOWN]):
        name = f"sparse/{number}"
        if not one:
            yield f"{name}: {model.registered:,} images, {_numbers(model)}; {model.holds}"
        if model.gps is not None and not any("GPS" in sentence for sentence in model.odd):  # else it is said below
            yield f"{name}: {placed(model)}"
        yield from (f"{name} is NOT TO BE TRUSTED: {sentence}" for sentence in model.odd)
    if len(models) > _SHOWN:
        odd = sum(bool(model.odd) for model in models[_SHOWN:])
        yield f"{len(models) - _SHOWN:,} smaller models" + (f", {odd:,} NOT TO BE TRUSTED" if odd else "")
    if unregistered:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in unregistered.items())
        number = sum(unregistered.values())
        yield f"{number:,} image{'s' * (number > 1)} in no model ({kinds}): unregistered.csv"


def placed(model: "ModelSummary") -> str:
    """In which axes it is, and how far from GPS."""
    axes = "in metres east, north, up" if model.georeference is not None else "in the mapper's axes"
    return f"{axes}, {model.gps}"


def _numbers(model: "ModelSummary") -> str:
    return (
        f"{model.points:,} points, track length {model.track_length:.2f}, reprojection error "
        f"{model.reprojection_error:.2f} px"
    )
