"""The logger `sfm_match`: what a job has to say beside its reports: warnings, and what takes long.

A program that uses sfm-match configures it as any logger. The command line shows all of it on stderr, a line each.
"""

import logging
import sys

LOGGER = logging.getLogger("sfm_match")


class _ToStderr(logging.Handler):
    """To what stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"sfm-match: {self.format(record)}", file=sys.stderr, flush=True)


def show_on_stderr() -> None:
    """As the command line does; worker processes do as the process that started them."""
    if not shown_on_stderr():
        LOGGER.addHandler(_ToStderr())
        LOGGER.setLevel(logging.INFO)


def shown_on_stderr() -> bool:
    """Whether `show_on_stderr` was called."""
    return any(isinstance(handler, _ToStderr) for handler in LOGGER.handlers)


def show_all(asked: bool) -> None:
    """Whether what only few want to know is shown, too: `--verbose`."""
    LOGGER.setLevel(logging.DEBUG if asked else logging.INFO)


def asked_for_all() -> bool:
    """Whether it was."""
    return LOGGER.isEnabledFor(logging.DEBUG)
