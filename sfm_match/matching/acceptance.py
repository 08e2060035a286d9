"""Whether two images show the same thing: a pair is accepted before its weak matches count.

Two looks. The first needs the matches alone and rejects most unrelated pairs before any geometry is estimated: it asks
for matches that are more likely right than wrong (the dual softmax's score is a probability), as many as an essential
matrix has unknowns, and for neighbours that keep their arrangement. The second asks, of the estimated geometry, how
many geometries as good as this one chance alone would give: the number of false alarms of an a-contrario model (Moisan
& Stival, "A Probabilistic Criterion to Detect Rigid Point Matches Between Two Images", IJCV 2004; with the precision
free as in OpenMVG's AC-RANSAC). It takes into account the number of matches, how exactly they fit, and the size of the
images, where a fixed number of inliers takes none.

Both are statements on matches placed by chance; no number in them belongs to a network or to a resolution.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

LEAST_MATCHES = 15  # COLMAP's least number of inliers of a two-view geometry (`min_num_inliers`)
STRONG = 0.5  # dual-softmax probability from which a match is more likely right than wrong
LEAST_STRONG = 5  # unknowns of an essential matrix: fewer matches fix no geometry
# Log10 of the expected number of neighbourhoods that chance arranges alike. One in a thousand pairs where enough
# matches are strong; nothing is asked where twice as many are. Where too few are, the arrangement counts alone, and one
# in a thousand is not enough: real matches are not independent, a horizon is found alike in unrelated pictures.
ARRANGED, ARRANGED_ALONE = -3.0, -10.0
SIGNIFICANT = -6.0  # log10 of the expected number of geometries by chance: one in a million pairs

_COMPARED = 64  # strongest matches whose arrangement is compared
_TOLERANCE = 0.45  # of the distance of two matches, by which it may differ: a scale of 1.5, a turn by 25 degrees
_APART = 0.02  # of an image's long side; nearer ones see the same pixels and are one observation
_SHARES = (1.0, 0.5, 0.25)  # of the matches, the strongest first, among which a geometry may be significant
_FINEST = 1e-6  # probability below which a residual is not told from zero

Floats = NDArray[np.float64]


class Verdict(StrEnum):
    """Why a pair is accepted or not."""

    ACCEPTED = "accepted"
    FEW = "few matches"
    UNRELATED = "no strong matches, no common arrangement"
    NO_GEOMETRY = "no geometry"
    CHANCE = "geometry no better than chance"
    WATERMARK = "watermark"


@dataclass(frozen=True)
class FirstLook:
    """What the matches alone say of a pair."""

    strong: int  # matches with a score above `STRONG`
    arrangement: float | None  # log10 of the expected number by chance; None where strong matches were enough
    verdict: Verdict | None  # None: worth estimating a geometry


@dataclass(frozen=True)
class Points:
    """The matched keypoints of one image, and its size."""

    xy: Floats  # (M, 2) pixels
    width: int  # pixels
    height: int  # pixels

    @property
    def long_side(self) -> float:
        """Pixels."""
        return float(max(self.width, self.height))

    @property
    def area(self) -> float:
        """Square pixels."""
        return float(self.width * self.height)


def count_strong(scores: NDArray[np.floating]) -> int:
    """Number of matches that are more likely right than wrong."""
    return int((scores > STRONG).sum())


def first_look(a: Points, b: Points, scores: NDArray[np.floating], *, rotations: int = 1) -> FirstLook:
    """Whether a geometry is worth estimating.

    Args:
        a, b: matched keypoints of both images, row by row.
        scores: (M,) dual-softmax probabilities.
        rotations: quarter turns that one image may have against the other: 1 or 4.
    """
    strong = count_strong(scores)
    if len(scores) < LEAST_MATCHES:
        return FirstLook(strong, None, Verdict.FEW)
    if strong >= 2 * LEAST_STRONG:
        return FirstLook(strong, None, None)
    strongest = np.argsort(-scores.astype(np.float32), kind="stable")[:_COMPARED]
    found = arrangement(
        Points(a.xy[strongest], a.width, a.height), Points(b.xy[strongest], b.width, b.height), rotations=rotations
    )
    least = ARRANGED if strong >= LEAST_STRONG else ARRANGED_ALONE
    return FirstLook(strong, found, None if found < least else Verdict.UNRELATED)


def arrangement(a: Points, b: Points, *, rotations: int = 1) -> float:
    """How surely neighbouring matches keep their arrangement from one image to the other.

    Of match i and its m nearest neighbours in A, those count whose displacement in B is that in A, up to `_TOLERANCE`
    of its length d. A place by chance is within that with probability pi (tolerance d)^2 / area, so that the count has
    a tail below (e mu / k)^k e^-mu (Chernoff's bound of a sum of independent events with mean mu).

    Args:
        a, b: matched keypoints of both images, row by row.
        rotations: as in `first_look`.

    Returns:
        Log10 of the smallest tail over all i and m, times the number of those tried: the expected number by chance.
    """
    count = len(a.xy)
    if count < 3:
        return math.inf
    places_a = (a.xy[:, 0] + 1j * a.xy[:, 1]) / a.long_side
    places_b = (b.xy[:, 0] + 1j * b.xy[:, 1]) / b.long_side
    apart_a, apart_b = places_a[None] - places_a[:, None], places_b[None] - places_b[:, None]  # (M, M)
    distance = np.abs(apart_a)
    nearest = np.argsort(distance, axis=1)
    counted = (distance > _APART) & (np.abs(apart_b) > _APART / 2)
    chance = np.where(distance > _APART, math.pi * (_TOLERANCE * distance) ** 2 / (b.area / b.long_side**2), 0.0)
    expected = np.take_along_axis(np.minimum(chance, 1.0), nearest, axis=1).cumsum(axis=1)
    least = 0.0
    for quarter in range(rotations):
        alike = counted & (np.abs(apart_b - 1j**quarter * apart_a) < _TOLERANCE * distance)
        found = np.take_along_axis(alike, nearest, axis=1).cumsum(axis=1)
        least = min(least, float(_log_tail(found, expected).min()))
    return least + math.log10(count * count * rotations)


def _log_tail(found: NDArray[np.int64], expected: Floats) -> Floats:
    """Log10 of Chernoff's bound of finding so many or more."""
    k, mu = np.maximum(found, 1e-9), np.maximum(expected, 1e-9)
    return np.where(k > mu, (k * np.log(mu / k) + k - mu) / math.log(10), 0.0)


def line_chance(residuals: Floats, width: int, height: int) -> Floats:
    """Probability that a point by chance is as near to a line, at most: a strip of the diagonal's length."""
    return np.minimum(2 * residuals * math.hypot(width, height) / (width * height), 1.0)


def point_chance(residuals: Floats, width: int, height: int) -> Floats:
    """Probability that a point by chance is as near to another."""
    return np.minimum(math.pi * residuals**2 / (width * height), 1.0)


def significance(chances: Floats, scores: NDArray[np.floating], *, sample: int, solutions: int) -> float:
    """Log10 of the number of geometries as good as this one that matches by chance are expected to give.

    With n matches, of which the k best fit with probability alpha each: (n - s) C(n, k) C(k, s) q alpha^(k - s), for
    a minimal sample of s matches with q solutions; the least over k, and over the strongest of the matches, times the
    number of such choices.

    Args:
        chances: (n,) probability, for each match, that one by chance fits as well.
        scores: (n,) of the matches.
        sample: matches that fix the geometry.
        solutions: geometries that a sample has, at most.
    """
    order = np.argsort(-scores.astype(np.float32), kind="stable")
    least = math.inf
    for share in _SHARES:
        fit = np.sort(chances[order[: math.ceil(share * len(order))]])
        n = len(fit)
        if n <= sample:
            continue
        factorials = np.concatenate(([0.0], np.log10(np.arange(1, n + 1)).cumsum()))
        k = np.arange(sample + 1, n + 1)
        choices = factorials[n] - factorials[n - k] - factorials[sample] - factorials[k - sample]  # C(n, k) C(k, s)
        tests = math.log10(len(_SHARES) * solutions * (n - sample))
        false_alarms = tests + choices + (k - sample) * np.log10(np.maximum(fit[sample:], _FINEST))
        least = min(least, float(false_alarms.min()))
    return least
