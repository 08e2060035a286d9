"""stdout and stderr as a command may find them: closed, a pipe whose reader is gone, without the characters of names.

What a command has to do does not depend on who listens: it goes on, and its exit status tells how it went.
"""

import errno
import os
import sys
from typing import Any, TextIO, cast


def prepare_streams() -> None:
    """Makes writing to stdout and stderr safe, in the process of a command.

    Closed ones go nowhere. (Their numbers must not be given to the next file that is opened: libraries would write
    their messages into it.) Characters that a terminal lacks are replaced. Where the reader of a pipe is gone, as
    `head` when it has enough, the rest goes nowhere; where a file cannot be written to, stderr says so.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115 - a number
        elif stream is getattr(sys, f"__{name}__"):  # not what a test or a notebook has put there
            stream.reconfigure(errors="replace")
            setattr(sys, name, cast(TextIO, _Lasting(stream, name)))


def output_lost() -> bool:
    """Whether stdout, which was to be kept, could not be written."""
    sys.stdout.flush()
    return bool(getattr(sys.stdout, "lost", False))


class _Lasting:
    """A stream to which writing never fails."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.lost = False

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        self._stream.flush()  # what the buffer still holds
        if error.errno != errno.EPIPE and self._name == "stdout":
            self.lost = True
            print(f"sfm-match: stdout: {error.strerror}; the rest of it is lost", file=sys.stderr)
