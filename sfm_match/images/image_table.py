"""The images of a collection, as columns: of a hundred thousand, a tenth of what an object for each would take."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from sfm_match.images.files import Header
from sfm_match.store.columns import Made, Names, Texts

_NONE = -1  # unit of an image without
_NO_HEADER, _NOWHERE = Header(0, 0), (math.nan, math.nan, math.nan)


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
        given = [header or _NO_HEADER for header in headers]
        self.widths = array("i", [header.width for header in given])
        self._heights = array("i", [header.height for header in given])
        self._orientations = array("b", [header.orientation for header in given])
        self._focals = array("d", [math.nan if header.focal is None else header.focal for header in given])
        cameras = {name: code for code, name in enumerate(dict.fromkeys(header.camera for header in given))}
        self._cameras = list(cameras)  # few cameras take many pictures
        self._codes = array("i", [cameras[header.camera] for header in given])
        # three each, nan: no altitude, or no location; empty where no image has one
        places = (header.location or _NOWHERE for header in given)
        located = any(header.location is not None for header in given)
        self._places = array("d", [math.nan if one is None else one for of in places for one in of] if located else [])
        self._dropped = {place: header.dropped for place, header in enumerate(given) if header.dropped}

    def __len__(self) -> int:
        return len(self.widths)

    def made(self, place: int) -> Header:
        focal, location = self._focals[place], None
        latitude, longitude, altitude = self._places[3 * place : 3 * place + 3] or _NOWHERE
        if not math.isnan(latitude):
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
        header = self.headers.made(place) if self.headers.widths[place] else None
        name, signature = self.names.made(place), self.signatures.made(place)
        return ImageRecord(name, signature, None if unit < 0 else unit, header, self.errors.get(place))
