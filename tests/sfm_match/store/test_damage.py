"""Real files with wrong bytes in them: what was written comes back, or one line says what is damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.errors import SfmMatchError
from sfm_match.store.features import read_features, read_index
from sfm_match.store.matches import read_head, read_matches
from sfm_match.store.pairs import read_known_pairs, read_pairs
from sfm_match.store.shard import ShardError

NAMES = [f"view{number:02d}.jpg" for number in range(4, 10)]
WRONG = st.lists(st.tuples(st.integers(0, 10**7), st.binary(min_size=1, max_size=40)), min_size=1, max_size=3)


def features_of(path: Path) -> object:
    return [read_index(path), [[part.tolist() for part in vars(one).values()] for one in read_features(path).values()]]


def matches_of(path: Path) -> object:
    head = read_head(path)
    found = [(one.indices.tolist(), one.scores.tolist()) for one in read_matches(path)]
    return head.fingerprint, head.images, head.pairs.tolist(), found


@pytest.fixture(scope="module")
def shards(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes, object]]:
    """A copy of a file of features and of one of matches, and what they hold."""
    folder, kinds = tmp_path_factory.mktemp("shards"), {"features": features_of, "matches": matches_of}
    found = {}
    for kind, read in kinds.items():
        content = next((finished / kind).glob("*.h5")).read_bytes()
        (folder / kind).write_bytes(content)
        found[kind] = folder / kind, content, read(folder / kind)
    return found


@pytest.mark.parametrize(("kind", "read"), [("features", features_of), ("matches", matches_of)])
@settings(max_examples=60)
@given(wrong=WRONG, head=st.booleans())
def test_wrong_bytes(
    shards: dict[str, tuple[Path, bytes, object]],
    kind: str,
    read: Callable[[Path], object],
    wrong: list[tuple[int, bytes]],
    head: bool,
) -> None:
    path, whole, expected = shards[kind]
    damaged = bytearray(whole)
    for place, content in wrong:
        start = place % (600 if head else len(whole))
        damaged[start : start + len(content)] = content
    path.write_bytes(damaged[: len(whole)])
    try:
        found = read(path)
    except ShardError as error:
        assert len(str(error).splitlines()) == 1
        assert str(path) in str(error)
    else:
        assert bytes(damaged[: len(whole)]) == whole
        assert found == expected


@settings(max_examples=200)
@given(wrong=WRONG)
def test_wrong_bytes_in_lists(tmp_path_factory: pytest.TempPathFactory, wrong: list[tuple[int, bytes]]) -> None:
    lines = "".join(f"{one}\t{other}\n" for one in NAMES for other in NAMES if one < other).encode()
    damaged = bytearray(lines)
    for place, content in wrong:
        start = place % len(lines)
        damaged[start : start + len(content)] = content
    path = tmp_path_factory.mktemp("p") / "pairs.txt"
    path.write_bytes(damaged)
    for read in (read_pairs, read_known_pairs):
        try:
            pairs = read(path, NAMES)
        except SfmMatchError as error:
            assert len(str(error).splitlines()) == 1
            assert str(path) in str(error)
        else:
            assert pairs.dtype == np.int64
            assert ((pairs >= 0) & (pairs < len(NAMES))).all()
