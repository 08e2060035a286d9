"""Reading JSON that another process, version or hand may have written: of the right types, or damaged.

msgspec checks them (also those of dataclasses) while it decodes.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from sfm_match.errors import SfmMatchError

T = TypeVar("T")


class DamagedRecord(SfmMatchError):
    """A record that cannot be read, or whose values have other types than they should."""


def read_json(path: Path, kind: type[T], cure: str) -> T:
    """The content of a JSON file, as `kind`: a dataclass, or a type such as `dict[str, int]`.

    Args:
        path: of the file.
        kind: what it has to hold; further keys of objects are passed over.
        cure: what to do about a damaged one, as the end of its line.

    Raises:
        FileNotFoundError: there is none.
        DamagedRecord: it cannot be read, is not JSON in UTF-8, or holds something else; the line names the field.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedRecord(f"{path}: {error.strerror}; {cure}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DamagedRecord(f"{path}: damaged ({' '.join(str(error).split())}); {cure}") from error
