"""Errors that a user can act on. Each carries the exit status that the command line documents."""

import difflib
from collections.abc import Iterable


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
