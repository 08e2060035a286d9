"""`infer`: two images, their matches, and a picture of them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import cv2
import numpy as np
from numpy.typing import NDArray

from exports.registry import FAMILY
from sfm_match.errors import NothingDone, UsageError
from sfm_match.features.dedode import chosen_weights
from sfm_match.features.extractor import ROTATIONS, Extractor, extractor_of
from sfm_match.images.coordinates import ImageGeometry, orient
from sfm_match.images.decoders import find_decoder
from sfm_match.images.files import Decode, Header, ImageError, read_header
from sfm_match.images.loader import Item, Loaded, to_network
from sfm_match.job.progress import Clock
from sfm_match.matching.dual_softmax import match_rotated
from sfm_match.models import check_name, match_defaults
from sfm_match.models.prepared import exported_file
from sfm_match.options.arguments import checked
from sfm_match.options.base import flag, options_of
from sfm_match.options.keywords import InferKeywords
from sfm_match.options.stages import ExtractOptions, MatchOptions
from sfm_match.refine.patch_alignment import align_photographs, see
from sfm_match.reporting.pair_picture import View, draw_pair, kinds_of
from sfm_match.reporting.pictures import check_picture, write_picture
from sfm_match.runner import DeDoDeRunner
from sfm_match.runtime import choose
from sfm_match.store.features import Features

MIN_FOR_GEOMETRY = 8  # matches; fewer have no fundamental matrix
_RANSAC_PIXELS = 2.0
_RANSAC_SEED = 0


@dataclass(frozen=True)
class PairResult:
    """Matches of two images. Coordinates are raw pixels, the centre of the top-left one at (0.5, 0.5)."""

    keypoints: tuple[int, int]  # found in each image
    points_a: NDArray[np.float32]  # (M, 2)
    points_b: NDArray[np.float32]  # (M, 2)
    scores: NDArray[np.float32]  # (M,) dual-softmax probability
    inliers: NDArray[np.bool_]  # (M,) agree with one fundamental matrix

    def line(self) -> str:
        found, agreeing = len(self.scores), int(self.inliers.sum())
        return (
            f"infer {self.keypoints[0]:,} and {self.keypoints[1]:,} keypoints, {found:,} matches, "
            f"{agreeing:,} of them agree with one epipolar geometry"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "keypoints": list(self.keypoints),
            "points_a": self.points_a.round(2).tolist(),
            "points_b": self.points_b.round(2).tolist(),
            "scores": self.scores.round(4).tolist(),
            "inliers": self.inliers.tolist(),
        }


@checked
def infer(
    image_a: str | Path,
    image_b: str | Path,
    viz: str | Path | None = None,
    *,
    end2end: bool = False,
    adjust_keypoints: bool = True,
    overwrite: bool = False,
    extract: ExtractOptions | None = None,
    match: MatchOptions | None = None,
    **keywords: Unpack[InferKeywords],
) -> PairResult:
    """Matches two images, and draws them where `viz` names a picture.

    Args:
        image_a: a file.
        image_b: another.
        viz: PNG or JPEG to write: the images with their matches, inliers and others told apart (`draw_pair`).
        end2end: run the exported network that goes from images to matches, as the earlier ONNX port does: exactly
            `max_keypoints` of each image, chosen as published, not refined; both images in the shape of A.
        overwrite: replace the file of `viz` where it is there.
        adjust_keypoints: move the points of B to where the photographs around the matches fit one another; not end2end.
        extract, match: options of the stages.
        **keywords: the same options by name; they go before.

    Raises:
        UsageError: an option it does not take, or `viz` is there, is one of the images, or is no picture's name.
        NothingDone: an image cannot be read.
    """
    given = options_of("infer", (ExtractOptions, MatchOptions), keywords)
    extracting, matching = ExtractOptions.from_mapping(given, extract), MatchOptions.from_mapping(given, match)
    for group in (extracting, matching):
        group.check_for("infer")
    if viz is not None:
        check_picture("--viz", Path(viz), inputs=[Path(image_a), Path(image_b)], overwrite=overwrite)
    decoder = find_decoder(extracting.decoder, extracting.device)
    images = [_load(Path(path), decoder) for path in (image_a, image_b)]
    if end2end:
        result = _end_to_end(images, extracting, matching)
    else:
        result = _in_stages(images, extracting, matching, adjust_keypoints)
    if viz is not None:
        first, second = (
            View(Path(image.name).name, image.header, image.pixels, points)
            for image, points in zip(images, (result.points_a, result.points_b), strict=True)
        )
        write_picture(Path(viz), draw_pair(first, second, kinds_of(result.inliers)))
    return result


@dataclass(frozen=True)
class _Image:
    name: str
    header: Header
    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, as the sensor stored them


def _load(path: Path, decoder: Decode) -> _Image:
    try:
        return _Image(str(path), read_header(path), decoder(path, None))
    except ImageError as error:
        raise NothingDone(f"{path}: {error}") from error


def _in_stages(
    images: list[_Image], extracting: ExtractOptions, matching: MatchOptions, adjust_keypoints: bool
) -> PairResult:
    """As the stages of a job do it; but what is adjusted is all matches of B, before the geometry is looked for."""
    module = extractor_of(extracting.model)
    model = module.chosen_model(extracting)
    geometries = [image.header.geometry(extracting.size, model.divisor) for image in images]
    extractor = module.create(model, extracting, Counter(geometry.bucket for geometry in geometries))
    features = [_features(extractor, image, geometry) for image, geometry in zip(images, geometries, strict=True)]
    defaults = match_defaults(extracting.model)
    threshold = defaults.threshold if matching.match_threshold is None else matching.match_threshold
    inverse = matching.inverse_temperature or defaults.inverse_temperature
    first, second = (f.descriptors.astype(np.float32) for f in features)
    matches = match_rotated(first, second, ROTATIONS if extracting.turns else 1, threshold, inverse)
    a = features[0].keypoints[matches.indices[:, 0]]
    b = features[1].keypoints[matches.indices[:, 1]]
    if adjust_keypoints:
        seen_a, seen_b = (see(image.pixels, geometry) for image, geometry in zip(images, geometries, strict=True))
        b = b + align_photographs(seen_a, seen_b, a, b).offsets / seen_b.scale
    counts = len(features[0].keypoints), len(features[1].keypoints)
    return PairResult(counts, a, b, matches.scores.astype(np.float32), _inliers(a, b))


def _features(extractor: Extractor, image: _Image, geometry: ImageGeometry) -> Features:
    pixels = to_network(image.pixels, geometry)[None]
    batch = Loaded([Item(image.name, geometry)], pixels, [None], {}, set())
    found = next(iter(extractor.each([batch], Clock())))[1][image.name]
    if isinstance(found, str):
        raise NothingDone(f"{image.name}: {found}")
    return found


def _end_to_end(images: list[_Image], extracting: ExtractOptions, matching: MatchOptions) -> PairResult:
    """Through the exported file, which is made for this size and this many keypoints at first use."""
    check_name(extracting.model)
    member = FAMILY[extracting.model]
    least = member.match_threshold
    threshold = least if matching.match_threshold is None else matching.match_threshold
    if threshold < least or matching.inverse_temperature not in (None, member.inverse_temperature):
        raise UsageError(
            f"--end2end: the file matches at --inverse-temperature {member.inverse_temperature:g} and keeps "
            f"scores above {least}: accepted are --match-threshold {least} and more"
        )
    device = choose(extracting.device).device
    if extracting.device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {extracting.device}: accepted with --end2end are auto, cpu, cuda")
    providers = ("CPUExecutionProvider",) if device == "cpu" else ("CUDAExecutionProvider", "CPUExecutionProvider")
    plain = ExtractOptions()
    for name in ("turns", "detection_threshold", "border", "subpixel"):
        if getattr(extracting, name) != getattr(plain, name):
            raise UsageError(f"--end2end: the file chooses keypoints as published and takes no {flag(name)}")
    width, height = images[0].header.geometry(extracting.size, member.alignment).bucket
    count = min(extracting.max_keypoints, width * height)
    path = exported_file(extracting.model, "end2end", chosen_weights(extracting), count)
    upright = [
        cv2.resize(orient(image.pixels, image.header.orientation), (width, height), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    found = DeDoDeRunner(end2end_path=path, providers=providers).match(DeDoDeRunner.preprocess(np.stack(upright)))
    kept = found.scores > threshold
    a, b = (
        _raw(matches[kept], image.header)
        for matches, image in zip((found.matches_a, found.matches_b), images, strict=True)
    )
    return PairResult((count, count), a, b, found.scores[kept], _inliers(a, b))


def _raw(normalised: NDArray[np.float32], header: Header) -> NDArray[np.float32]:
    """(M, 2) in [-1, 1] over the upright image -> raw pixels."""
    whole = header.geometry(
        max(header.width, header.height), 1
    )  # not resized: its network pixels are those of the upright image
    upright = (normalised + 1) / 2 * np.array(whole.network_size)
    return whole.raw_from_network(upright.astype(np.float32))


def _inliers(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    if len(a) < MIN_FOR_GEOMETRY:
        return np.zeros(len(a), bool)
    cv2.setRNGSeed(_RANSAC_SEED)
    _, mask = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, _RANSAC_PIXELS, 0.999, 10_000)
    return np.zeros(len(a), bool) if mask is None else mask.ravel() > 0
