"""What each of very many images has, by its name: an array for each kind of value, not objects for each image.

A hundred thousand names are some megabytes this way; as keys of dictionaries, with what they are keys of, they are ten
times that. Reading makes the objects that it gives; but for the latest they are not kept.
"""

from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from functools import lru_cache
from itertools import compress, islice
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

V_co = TypeVar("V_co", covariant=True)
_LATEST = 1 << 10  # values of a column that are not made again: pairs come by few images
_APART = 16  # names between those that bisection, which is slower in Python than in C, looks at first
_UTF8 = ("utf-8", "surrogatepass")  # names of files that are no text have surrogates


class Made(Sequence[V_co]):
    """A sequence whose elements are made when they are asked for."""

    @abstractmethod
    def made(self, place: int) -> V_co:
        """The element of a place, which is not below 0."""

    @overload
    def __getitem__(self, place: int) -> V_co: ...
    @overload
    def __getitem__(self, place: slice) -> list[V_co]: ...
    def __getitem__(self, place: int | slice) -> V_co | list[V_co]:
        places = range(len(self))[place]
        return self.made(places) if isinstance(places, int) else [self.made(one) for one in places]

    def __iter__(self) -> Iterator[V_co]:
        return map(self.made, range(len(self)))


class Computed(Made[V_co]):
    """What a function gives of each place.

    Args:
        count: of places.
        of: the function.
    """

    def __init__(self, count: int, of: Callable[[int], V_co]) -> None:
        self._count, self._of = count, of

    def __len__(self) -> int:
        return self._count

    def made(self, place: int) -> V_co:
        return self._of(place)


class Texts(Made[str]):
    """Strings in one buffer: a list that others are appended to, but whose own do not change."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._held, self._ends = bytearray(), array("Q", (0,))
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """As of a list."""
        self._held += text.encode(*_UTF8)
        self._ends.append(len(self._held))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def made(self, place: int) -> str:
        return self._bytes(place).decode(*_UTF8)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Texts):
            return NotImplemented
        return self._held == other._held and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __iter__(self) -> Iterator[str]:
        held, parts = self._held, map(slice, self._ends, islice(self._ends, 1, None))
        if held.isascii():  # a third of the time
            return map(held.decode("ascii").__getitem__, parts)
        return (held[part].decode(*_UTF8) for part in parts)

    def _bytes(self, place: int) -> bytearray:
        return self._held[self._ends[place] : self._ends[place + 1]]


class Names(Texts):
    """Names in ascending order, each once; they are found by bisection, as the order of UTF-8 is that of `str`.

    Raises:
        ValueError: they are not in order.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._marks: list[bytes] = []
        self._latest: str | None = None
        super().__init__(names)

    def append(self, text: str) -> None:
        """A name that comes after all that are here.

        Raises:
            ValueError: it does not.
        """
        if self._latest is not None and text <= self._latest:
            raise ValueError(f"{text[:80]!r} is out of order after {self._latest[:80]!r}, or there twice")
        if len(self) % _APART == 0:
            self._marks.append(text.encode(*_UTF8))
        super().append(text)
        self._latest = text

    def find(self, name: object) -> int | None:
        """Its place; None where it is not among them."""
        if not isinstance(name, str):
            return None
        sought = name.encode(*_UTF8)
        high = min(bisect_right(self._marks, sought) * _APART, len(self))
        low = max(high - _APART, 0)
        while low < high:
            middle = (low + high) // 2
            if self._bytes(middle) < sought:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self._bytes(low) == sought else None

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """As of a list."""
        place = self.find(name)
        if place is None or place not in range(*slice(start, stop).indices(len(self))):
            raise ValueError(f"{name!r} is not among the names")
        return place

    def __contains__(self, name: object) -> bool:
        return self.find(name) is not None


class Column(Mapping[str, V_co]):
    """A value of every name, or of some.

    Args:
        names: of all.
        values: of every name, in their order; an element is made when it is asked for.
        here: (N,) bool, which names have one; None: all of them.
    """

    def __init__(self, names: Names, values: Sequence[V_co], here: NDArray[np.bool_] | None = None) -> None:
        self.names, self._values = names, values
        self._here = None if here is None or here.all() else here.astype(np.uint8).tobytes()
        self._count = len(names) if self._here is None else self._here.count(1)
        self._value = lru_cache(_LATEST)(self._found)

    @property
    def here(self) -> NDArray[np.bool_]:
        """(N,) which names have a value."""
        return np.ones(len(self.names), bool) if self._here is None else np.frombuffer(self._here, bool)

    def where(self, here: NDArray[np.bool_]) -> "Column[V_co]":
        """Of fewer names. `here` (N,) tells which; those that have no value have none still."""
        return Column(self.names, self._values, here & self.here)

    def __reduce__(self) -> tuple[type["Column[V_co]"], tuple[Names, Sequence[V_co], NDArray[np.bool_]]]:
        return Column, (self.names, self._values, self.here)

    def __getitem__(self, name: str) -> V_co:
        return self._value(name)

    def _found(self, name: str) -> V_co:
        place = self._place(name)
        if place is None:
            raise KeyError(name)
        return self._values[place]

    def __contains__(self, name: object) -> bool:
        return self._place(name) is not None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return iter(self.names) if self._here is None else compress(self.names, self._here)

    def __repr__(self) -> str:
        return f"<{len(self):,} of {len(self.names):,} names>"

    def items(self) -> ItemsView[str, V_co]:
        return _Items(self)

    def values(self) -> ValuesView[V_co]:
        return _Values(self)

    def in_order(self) -> Iterator[V_co]:
        """The values, in the order of the names."""
        made = self._values.made if isinstance(self._values, Made) else self._values.__getitem__
        places = range(len(self.names))
        return map(made, places if self._here is None else compress(places, self._here))

    def _place(self, name: object) -> int | None:
        place = self.names.find(name)
        return place if place is None or self._here is None or self._here[place] else None


def dense(column: Column[int], without: int) -> NDArray[np.int64]:
    """(N,) values of all names; `without` of those that have none."""
    numbers, here = np.full(len(column.names), without, np.int64), column.here
    numbers[here] = np.fromiter(column.values(), np.int64, len(column))
    return numbers


class _Items(ItemsView[str, V_co]):
    _mapping: Column[V_co]

    def __iter__(self) -> Iterator[tuple[str, V_co]]:  # without a search for each
        return zip(self._mapping, self._mapping.in_order(), strict=True)


class _Values(ValuesView[V_co]):
    _mapping: Column[V_co]

    def __iter__(self) -> Iterator[V_co]:
        return self._mapping.in_order()


class Groups(Mapping[int, list[str]]):
    """Names by a number of each, such as their unit.

    Args:
        names: of all.
        numbers: (N,) of each name; below 0: of no group.
    """

    def __init__(self, names: Names, numbers: NDArray[np.int64]) -> None:
        self._names = names
        order = np.argsort(numbers, kind="stable").astype(np.int32)
        self._order = order[np.searchsorted(numbers[order], 0) :]
        found, first, count = np.unique(numbers[self._order], return_index=True, return_counts=True)
        ends = (first + count).tolist()
        self._parts = dict(zip(found.tolist(), zip(first.tolist(), ends, strict=True), strict=True))

    def only(self, numbers: Iterable[int]) -> "Groups":
        """Some of the groups, in the order of the numbers."""
        fewer = object.__new__(Groups)
        fewer._names, fewer._order = self._names, self._order
        fewer._parts = {number: self._parts[number] for number in numbers}
        return fewer

    def places(self, number: int) -> NDArray[np.int32]:
        """(K,) ascending: of the names of a group; of none, where there is no such group."""
        start, end = self._parts.get(number, (0, 0))
        return self._order[start:end]

    def __getitem__(self, number: int) -> list[str]:
        start, end = self._parts[number]
        return [self._names[place] for place in self._order[start:end].tolist()]

    def __contains__(self, number: object) -> bool:
        return number in self._parts

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[int]:
        return iter(self._parts)
