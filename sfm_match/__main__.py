"""`python -m sfm_match`, and where `sfm-match` begins."""

import os
import signal
from types import FrameType

_INTERRUPTED = 130  # exit status


def start() -> None:
    """The command line. Ctrl-C ends it in one line, also while modules are imported, where Python shows its stack."""
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started us wants it ignored
    if own:
        signal.signal(signal.SIGINT, _leave)
    from sfm_match.cli.main import main

    if own:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"sfm-match: interrupted\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    start()
