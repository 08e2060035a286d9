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

    def __init__(self) -> None:
        self.widths, self._heights, self._orientations = array("i"), array("i"), array("b")
        self._focals = array("d")
        self._cameras, self._codes = list[str](), array("i")  # few cameras take many pictures
        self._code_of: dict[str, int] = {}
        self._places = array("d")  # three each, nan: no altitude, or no location; empty where no image has one
        self._dropped: dict[int, str] = {}

    def append(self, header: Header | None) -> None:
        """As of a list."""
        place, header = len(self), header or _NO_HEADER
        self.widths.append(header.width)
        self._heights.append(header.height)
        self._orientations.append(header.orientation)
        self._focals.append(math.nan if header.focal is None else header.focal)
        if header.camera not in self._code_of:
            self._code_of[header.camera] = len(self._cameras)
            self._cameras.append(header.camera)
        self._codes.append(self._code_of[header.camera])
        if header.location is not None and not self._places:
            self._places.extend(_NOWHERE * place)
        if header.location is not None or self._places:
            self._places.extend(math.nan if one is None else one for one in header.location or _NOWHERE)
        if header.dropped:
            self._dropped[place] = header.dropped

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
        records: in this order; one after another is taken.

    Raises:
        ValueError: they are not in order, or two have one name.
    """

    def __init__(self, records: Iterable[ImageRecord]) -> None:
        self.names, self.signatures = Names(), Texts()
        self.units, self.headers = array("q"), Headers()
        self.errors: dict[int, str] = {}
        for place, record in enumerate(records):
            self.names.append(record.name)
            self.signatures.append(record.signature)
            self.units.append(_NONE if record.unit is None else record.unit)
            self.headers.append(record.header)
            if record.error is not None:
                self.errors[place] = record.error

    def __len__(self) -> int:
        return len(self.names)

    def made(self, place: int) -> ImageRecord:
        unit = self.units[place]
        header = self.headers.made(place) if self.headers.widths[place] else None
        name, signature = self.names.made(place), self.signatures.made(place)
        return ImageRecord(name, signature, None if unit < 0 else unit, header, self.errors.get(place))
