"""`export engine`: TensorRT engines of a job, built ahead, in the cache that `extract` looks into."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sfm_match.errors import UsageError
from sfm_match.features.dedode import DeDoDeExtractor, chosen_model
from sfm_match.features.tiles import buckets_of, geometry_of
from sfm_match.images.files import Header, scan
from sfm_match.images.headers import read_headers
from sfm_match.options.stages import ExtractOptions
from sfm_match.runtime.planning import OWN_PROFILE, Range


def build_engines(images: Path | None, shapes: Iterable[tuple[int, int]], options: ExtractOptions) -> list[Range]:
    """Builds, or finds in the cache, what an extraction with these options needs on this GPU.

    Args:
        images: folder of photographs, whose shapes are taken, or None.
        shapes: (width, height) of padded images, multiples of the model's divisor, pixels.
        options: of `extract`.

    Returns:
        The batches that engines are built for.

    Raises:
        UsageError: no shape, one that does not fit the model, or no TensorRT here.
    """
    options = replace(options, device="tensorrt")
    model = chosen_model(options)
    buckets = Counter(dict.fromkeys(shapes, OWN_PROFILE))
    for width, height in buckets:
        if min(width, height) < model.divisor or width % model.divisor or height % model.divisor:
            raise UsageError(f"--shapes {width}x{height}: accepted are multiples of {model.divisor} for {model.name}")
    if images is not None:
        headers = read_headers(images, [facts.name for facts in scan(images) if facts.error is None])
        geometries = (geometry_of(h, options, model.divisor) for h in headers if isinstance(h, Header))
        buckets.update(buckets_of(geometries, options, model.divisor))
    if not buckets:
        raise UsageError("export engine: accepted are --images DIR, or --shapes WxH[,WxH ...]")
    return DeDoDeExtractor(model, options, buckets).served
