"""Errors that a user can act on. Each carries the exit status that the command line documents."""

import difflib
import os
import reprlib
from collections.abc import Iterable

_QUOTED, _QUOTED_PATH = 80, 240  # characters of a value in a message
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _QUOTED


class SfmMatchError(Exception):
    """One clear line: what, where, what to do."""

    exit_status = 3


class UsageError(SfmMatchError):
    """The command was asked for something it does not take."""

    exit_status = 2


class NothingDone(SfmMatchError):
    """The command could not do anything: no readable image, no model, no reconstruction."""

    exit_status = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing when no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def quoted(value: object) -> str:
    """A user's value for a message: control characters escaped, at most 80 characters, the middle of others left out.

    Of paths 240: they are copied from messages.
    """
    path = isinstance(value, os.PathLike)
    try:
        text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, or an object whose own code fails
        text = f"a value of type {type(value).__name__}"
    most = _QUOTED_PATH if path else _QUOTED
    head, tail = text[: most // 2], text[most // 2 :]
    escaped = printable(head) + printable(tail[-most:])
    if len(tail) > most or len(escaped) > most:
        escaped = f"{printable(head)[: most // 2 - 2]}...{printable(tail[-most:])[1 - most // 2 :]}"
    return escaped


def found(value: object) -> str:
    """A value of a wrong type, as Python writes it, for a message."""
    try:
        return quoted(_REPR.repr(value))
    except Exception:  # noqa: BLE001 - as in `quoted`
        return quoted(f"a value of type {type(value).__name__}")


def printable(text: str) -> str:
    """Text of one line: what would move a terminal's cursor, or is no character, is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
