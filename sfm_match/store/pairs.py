"""`pairs.txt`: one pair a line, TAB between the names, names in order, lines as the strategy streams them."""

import io
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pairs import Block
from sfm_match.errors import NothingDone, UsageError
from sfm_match.store.pair_table import PairTable
from sfm_match.store.regular import of_the_process, open_regular
from sfm_match.store.shard import replacing

_CURE = "run `sfm-match pairs` again"
_AT_ONCE = 1 << 14  # pairs that become codes together


def write_pairs_file(path: Path, names: Sequence[str], blocks: Iterable[Block]) -> int:
    """Writes pairs as they come. Returns how many; without any, an earlier file is left alone.

    Raises:
        NothingDone: no pair came.
    """
    count = 0
    with replacing(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for block in blocks:
                texts = {place: names[place] for place in np.unique(block).tolist()}  # names may be made when asked for
                file.writelines(f"{texts[i]}\t{texts[j]}\n" for i, j in block.tolist())
                count += len(block)
        if not count:
            raise NothingDone(f"no pair among {len(names)} images")
    return count


def read_pairs(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(P, 2) indices into `names` of the pairs of a file.

    Raises:
        NothingDone: no pairs were written.
        UsageError: the file names images that are not in the collection.
    """
    return _pairs(_listed(path, names), names)


def read_pair_table(path: Path, names: Sequence[str]) -> PairTable:
    """The same, as a table. Raises as `read_pairs`."""
    return PairTable.of_codes(_listed(path, names), len(names))


def _listed(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(P,) ascending: the index of the first image * images + that of the second."""
    if not path.exists():
        raise NothingDone(f"{path.parent}: no pairs yet; run `sfm-match pairs` first")
    codes = _parsed(path, names, strict=True)
    if not len(codes):
        raise NothingDone(f"{path}: no pair in it; run `sfm-match pairs` again")
    return codes


def read_known_pairs(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """(P, 2) indices into `names`; pairs of other images are passed over, and a file that is not there is empty."""
    return _pairs(_parsed(path, names, strict=False) if path.exists() else np.empty(0, np.int64), names)


def _pairs(codes: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
    return np.stack(np.divmod(codes, max(len(names), 1)), axis=1)


def _parsed(path: Path, names: Sequence[str], *, strict: bool) -> NDArray[np.int64]:
    try:
        return _lines(path, names, strict=strict)
    except OSError as error:
        if of_the_process(error):
            raise
        raise UsageError(f"{path}: {error.strerror}; {_CURE}") from error
    except UnicodeError as error:
        raise UsageError(f"{path}: not text in UTF-8; {_CURE}") from error


def _lines(path: Path, names: Sequence[str], *, strict: bool) -> NDArray[np.int64]:
    index = {name: i for i, name in enumerate(names)}
    found, some = array("q"), array("i")  # 8 bytes a pair; what is larger for a moment would stay with the process
    with io.TextIOWrapper(io.BufferedReader(open_regular(path)), encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                first, second = line.rstrip("\n").split("\t")
                some.extend((index[first], index[second]))
            except (ValueError, KeyError):
                if strict:
                    raise UsageError(f"{path}, line {number}: not two images of this collection; {_CURE}") from None
            if len(some) == 2 * _AT_ONCE:
                found.frombytes(_codes(some, len(names)))
                del some[:]
    found.frombytes(_codes(some, len(names)))
    del index
    codes = np.frombuffer(found, np.int64)
    codes.sort()
    again = codes[1:] == codes[:-1]  # a file changed by hand may say things twice
    return codes[np.append(True, ~again)] if again.any() else codes


def _codes(flat: "array[int]", count: int) -> bytes:
    """Of (2 P,) images, two of each pair; those of an image with itself are passed over."""
    pairs = np.sort(np.frombuffer(flat, np.int32).reshape(-1, 2), axis=1).astype(np.int64)
    return (pairs[pairs[:, 0] < pairs[:, 1]] @ np.array((count, 1), np.int64)).tobytes()
