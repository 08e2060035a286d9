"""The images of a collection, as columns: of a hundred thousand, a tenth of what an object for each would take."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from sfm_match.images.files import Header
from sfm_match.store.columns import Made, Names, Texts

_NONE = -1  # unit of an image without


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of the collection. `unit` is None when its header could not be used; `error` says why."""

    name: str
    signature: str
    unit: int | None
    header: Header | None
    error: str | None


class Headers(Made[Header]):
    """Headers by their places. A place without one has no pixels."""

    def __init__(self, headers: Iterable[Header | None]) -> None:
        self.widths, self._heights, self._orientations = array("i"), array("i"), array("b")
        self._focals = array("d")  # nan: none
        self._cameras, self._codes = list[str](), array("i")  # few cameras take many pictures
        self._places = array("d")  # three of each, nan: no altitude; of none, as long as none has one
        self._located = bytearray()
        self._dropped = dict[int, str]()
        known = dict[str, int]()
        for place, header in enumerate(headers):
            given = header or Header(0, 0)
            self.widths.append(given.width)
            self._heights.append(given.height)
            self._orientations.append(given.orientation)
            self._focals.append(math.nan if given.focal is None else given.focal)
            self._codes.append(known.setdefault(given.camera, len(known)))
            self._located.append(given.location is not None)
            if given.location is not None:
                latitude, longitude, altitude = given.location
                self._places.extend([0.0] * (3 * place - len(self._places)))
                self._places.extend((latitude, longitude, math.nan if altitude is None else altitude))
            if given.dropped:
                self._dropped[place] = given.dropped
        self._cameras = list(known)

    def __len__(self) -> int:
        return len(self.widths)

    def made(self, place: int) -> Header:
        focal, location = self._focals[place], None
        if self._located[place]:
            latitude, longitude, altitude = self._places[3 * place : 3 * place + 3]
            location = latitude, longitude, None if math.isnan(altitude) else altitude
        return Header(
            self.widths[place],
            self._heights[place],
            self._orientations[place],
            self._cameras[self._codes[place]],
            None if math.isnan(focal) else focal,
            location,
            self._dropped.get(place, ""),
        )


class ImageTable(Made[ImageRecord]):
    """Records in the order of their names.

    Args:
        records: in any order.

    Raises:
        ValueError: two of one name.
    """

    def __init__(self, records: Iterable[ImageRecord]) -> None:
        ordered = sorted(records, key=lambda record: record.name)
        self.names = Names(record.name for record in ordered)
        self.signatures = Texts(record.signature for record in ordered)
        self.units = array("q", (_NONE if record.unit is None else record.unit for record in ordered))
        self.headers = Headers(record.header for record in ordered)
        self.errors = {place: record.error for place, record in enumerate(ordered) if record.error is not None}

    def __len__(self) -> int:
        return len(self.names)

    def made(self, place: int) -> ImageRecord:
        unit = self.units[place]
        header = self.headers[place] if self.headers.widths[place] else None
        error = self.errors.get(place)
        return ImageRecord(self.names[place], self.signatures[place], None if unit < 0 else unit, header, error)
