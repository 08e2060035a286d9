from hypothesis import given
from hypothesis import strategies as st

from exports.registry import FAMILY
from sfm_match.runtime.planning import (
    MOST_IMAGES,
    MOST_PAIRS,
    OWN_PROFILE,
    Range,
    fits,
    images_a_call,
    images_at_once,
    most_a_call,
    pairs_a_call,
    profile_for,
    ranges,
    whole_range,
)

sides = st.integers(4, 64).map(lambda n: 16 * n)
buckets = st.dictionaries(st.tuples(sides, sides), st.integers(1, 3 * OWN_PROFILE), min_size=1, max_size=8)


@given(buckets, st.integers(1, 16), st.data())
def test_every_batch_of_the_job_has_a_range(seen: dict[tuple[int, int], int], batch: int, data: st.DataObject) -> None:
    served = [{"image": r.shapes(before=(3,))} for r in ranges(seen, batch)]
    width, height = data.draw(st.sampled_from(sorted(seen)))
    count = data.draw(st.integers(1, batch))
    place = profile_for(served, {"image": (count, 3, height, width)})
    assert place is not None
    least, usual, largest = served[place]["image"]
    assert all(a <= b <= c for a, b, c in zip(least, usual, largest, strict=True))
    if seen[width, height] >= OWN_PROFILE:
        assert least[2:] == usual[2:] == largest[2:] == (height, width)
    whole = whole_range(served)["image"]
    assert all(fits(shape, whole[0], whole[2]) for profile in served for shape in profile["image"])


def test_frequent_shapes_have_engines_of_their_own_and_the_rest_one() -> None:
    found = ranges({(1024, 768): 500, (768, 1024): 64, (640, 480): 3, (512, 512): 7}, 8)
    assert found == [
        Range((1, 1024, 768), (8, 1024, 768), (8, 1024, 768)),
        Range((1, 768, 1024), (8, 768, 1024), (8, 768, 1024)),
        Range((1, 480, 512), (8, 512, 512), (8, 512, 640)),
    ]


def test_shapes_that_no_profile_takes() -> None:
    profiles = [{"image": ((1, 3, 64, 64), (2, 3, 64, 64), (4, 3, 64, 64))}]
    assert profile_for(profiles, {"image": (5, 3, 64, 64)}) is None
    assert profile_for(profiles, {"image": (1, 3, 64, 80)}) is None
    assert profile_for(profiles, {"image": (4, 3, 64, 64), "log_threshold": (1,)}) == 0


@given(st.integers(1 << 20, 1 << 38), st.integers(1, 1 << 22), st.floats(1, 5000), st.integers(1, 256))
def test_batches_fit_and_are_powers_of_two(free: int, pixels: int, each: float, channels: int) -> None:
    batch = images_a_call(free, pixels, each, channels * pixels)
    assert batch == 1 or batch * channels * pixels < 2**31
    assert 1 <= batch <= MOST_IMAGES
    assert batch & (batch - 1) == 0
    assert batch == 1 or 2 * batch * pixels * each <= free


def test_large_gpus_take_more() -> None:
    pixels, each = 1024 * 768, 1700.0
    assert images_a_call(140 << 30, pixels, each, pixels) == MOST_IMAGES
    assert images_a_call(8 << 30, pixels, each, pixels) == 1
    assert images_a_call(24 << 30, pixels, each, pixels) == 4
    assert pairs_a_call(140 << 30, 4096) == MOST_PAIRS
    assert pairs_a_call(8 << 30, 4096) == 8
    assert (
        pairs_a_call(24 << 30, 4096) == pairs_a_call(22 << 30, 4096) == 16
    )  # what is free at the moment decides little
    assert pairs_a_call(8 << 30, 100_000) == 1


def test_no_tensor_has_more_elements_than_tensorrt_takes() -> None:
    member = FAMILY["dedode-l-b"]
    assert member.largest_tensor(1024 * 1024) == 128 * 1024 * 1024
    assert images_a_call(140 << 30, 1024 * 1024, 1.0, member.largest_tensor(1024 * 1024)) == 8  # 16 are 2^31
    assert images_a_call(140 << 30, 1024 * 768, 1.0, member.largest_tensor(1024 * 768)) == MOST_IMAGES
    assert pairs_a_call(1 << 40, 8192) == 16  # 32 are 2^31
    assert most_a_call(2**31) == 1
    assert most_a_call(2**30) == 1
    assert most_a_call(2**29) == 3


def test_a_cpu_takes_as_many_images_as_it_has_cores_images_and_memory() -> None:
    assert images_at_once(100, 1e8, 16, 64 << 30) == 16
    assert images_at_once(3, 1e8, 16, 64 << 30) == 3
    assert images_at_once(100, 2e9, 16, 32 << 30) == 4  # a quarter of the memory
    assert images_at_once(100, 2e9, 16, 1 << 30) == images_at_once(0, 1e8, 16, None) == 1
    assert images_at_once(100, 1e8, 16, None) == 4
