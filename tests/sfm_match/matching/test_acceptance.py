"""Acceptance of pairs: chance is rejected, what holds together is not, whatever the resolution."""

import math

import numpy as np
import pytest

from sfm_match.matching.acceptance import (
    ARRANGED,
    ARRANGED_ALONE,
    LEAST_MATCHES,
    LEAST_STRONG,
    SIGNIFICANT,
    Points,
    Verdict,
    arrangement,
    first_look,
    line_chance,
    point_chance,
    significance,
)

WIDTH, HEIGHT = 640, 480


def placed(rng: np.random.Generator, count: int) -> Points:
    return Points(rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 2)), WIDTH, HEIGHT)


def moved(points: Points, rng: np.random.Generator) -> Points:
    """The same scene from a little further to the side: a shift, a shear, a pixel of noise."""
    xy = points.xy @ np.array([[1.05, 0.05], [0.02, 0.97]]) + (20, -8) + rng.normal(0, 1, points.xy.shape)
    return Points(xy, WIDTH, HEIGHT)


def test_weak_matches_by_chance_are_rejected() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = placed(rng, 80), placed(rng, 80)
        assert first_look(a, b, rng.uniform(0.1, 0.5, 80)).verdict is Verdict.UNRELATED


def test_weak_matches_that_keep_their_arrangement_are_not() -> None:
    rng = np.random.default_rng(0)
    a = placed(rng, 80)
    seen = first_look(a, moved(a, rng), rng.uniform(0.1, 0.5, 80))
    assert seen.verdict is None
    assert seen.arrangement is not None and seen.arrangement < ARRANGED_ALONE
    assert seen.strong == 0


def test_some_strong_matches_need_less_of_an_arrangement() -> None:
    rng = np.random.default_rng(0)
    a = placed(rng, 24)
    b = Points(np.concatenate((moved(a, rng).xy[:14], placed(rng, 10).xy)), WIDTH, HEIGHT)
    found = arrangement(a, b)
    assert ARRANGED_ALONE < found < ARRANGED
    scores = np.full(24, 0.4)
    assert first_look(a, b, scores).verdict is Verdict.UNRELATED
    scores[:LEAST_STRONG] = 0.9
    assert first_look(a, b, scores).verdict is None


def test_strong_matches_need_no_arrangement_and_few_matches_are_too_few() -> None:
    rng = np.random.default_rng(0)
    a, b, scores = placed(rng, 40), placed(rng, 40), np.full(40, 0.3)
    scores[: 2 * LEAST_STRONG - 1] = 0.9
    assert first_look(a, b, scores).verdict is Verdict.UNRELATED
    scores[2 * LEAST_STRONG - 1] = 0.9
    assert first_look(a, b, scores).verdict is None
    few = LEAST_MATCHES - 1
    a, b = Points(a.xy[:few], WIDTH, HEIGHT), Points(b.xy[:few], WIDTH, HEIGHT)
    assert first_look(a, b, np.ones(few)).verdict is Verdict.FEW


def test_a_quarter_turn_is_an_arrangement_where_it_is_expected() -> None:
    rng = np.random.default_rng(0)
    a = placed(rng, 60)
    turned = Points(np.stack((HEIGHT - a.xy[:, 1], a.xy[:, 0]), axis=1), HEIGHT, WIDTH)
    assert arrangement(a, turned, rotations=4) < ARRANGED_ALONE
    assert arrangement(a, turned, rotations=1) > ARRANGED


def test_resolution_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    a = placed(rng, 60)
    b = moved(a, rng)
    doubled = [Points(2 * p.xy, 2 * WIDTH, 2 * HEIGHT) for p in (a, b)]
    assert arrangement(*doubled) == pytest.approx(arrangement(a, b))
    residuals = rng.uniform(0, 5, 60)
    for chance in (line_chance, point_chance):
        np.testing.assert_allclose(chance(2 * residuals, 2 * WIDTH, 2 * HEIGHT), chance(residuals, WIDTH, HEIGHT))


def test_matches_on_one_spot_are_no_arrangement() -> None:
    """Of a logo, say: all that is seen of it is a few pixels wide in both images."""
    rng = np.random.default_rng(0)
    a = Points(rng.normal((100, 100), 2, (60, 2)), WIDTH, HEIGHT)
    b = Points(a.xy + (300, 200), WIDTH, HEIGHT)
    assert arrangement(a, b) > ARRANGED


@pytest.mark.parametrize(("sample", "solutions"), [(7, 3), (5, 10), (4, 1)])
def test_significance_is_the_formula(sample: int, solutions: int) -> None:
    """Moisan & Stival's number of false alarms with Python's exact binomials."""
    rng = np.random.default_rng(1)
    chances, scores = np.concatenate((rng.uniform(0, 0.01, 20), rng.uniform(0, 1, 11))), rng.uniform(0.1, 1, 31)
    expected = math.inf
    for count in (31, 16, 8):  # all, half, a quarter of them
        fit = np.sort(chances[np.argsort(-scores)][:count])
        for k in range(sample + 1, count + 1):
            choices = math.comb(count, k) * math.comb(k, sample) * solutions * (count - sample) * 3
            expected = min(expected, math.log10(choices) + (k - sample) * math.log10(max(fit[k - 1], 1e-6)))
    assert significance(chances, scores, sample=sample, solutions=solutions) == pytest.approx(expected)


def test_chance_is_not_significant_and_a_geometry_is() -> None:
    rng = np.random.default_rng(0)
    by_chance = [
        significance(rng.uniform(0, 1, n), rng.uniform(0.1, 1, n), sample=7, solutions=3)
        for n in rng.integers(15, 400, 300)
    ]
    assert min(by_chance) > SIGNIFICANT
    fits = np.concatenate((rng.uniform(0, 0.01, 60), rng.uniform(0, 1, 60)))
    assert significance(fits, rng.uniform(0.1, 1, 120), sample=7, solutions=3) < 5 * SIGNIFICANT


def test_the_strong_ones_among_many_wrong_ones_count() -> None:
    """A quarter of the matches, the strongest, fit; among all of them the same fits are drowned."""
    rng = np.random.default_rng(0)
    chances, scores = rng.uniform(0, 1, 400), rng.uniform(0.1, 0.5, 400)
    chances[:36], scores[:36] = rng.uniform(0, 0.02, 36), 0.9
    assert significance(chances, scores, sample=7, solutions=3) < significance(
        chances, rng.permutation(scores), sample=7, solutions=3
    )


def test_fewer_matches_than_a_sample() -> None:
    assert significance(np.zeros(7), np.ones(7), sample=7, solutions=3) == math.inf
    assert arrangement(Points(np.zeros((2, 2)), 10, 10), Points(np.zeros((2, 2)), 10, 10)) == math.inf
