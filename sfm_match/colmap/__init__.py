"""COLMAP's side: cameras, database, reconstruction. pycolmap is imported only here, inside functions."""

import os
import sys
from contextlib import suppress
from pathlib import Path

# of glog, which reads them as pycolmap is loaded: the file has the name that it is given, and each line is written at
# once, as a signal may end the process
_ENVIRONMENT = {"GLOG_timestamp_in_logfile_name": "false", "GLOG_logbuflevel": "-1"}
_shown = False
_kept = False
_file: Path | None = None


def keep_colmap_log(*, shown: bool) -> None:
    """The command line's choice: COLMAP's own log goes to a file of the workspace.

    Args:
        shown: on stderr, too.
    """
    global _shown, _kept
    _shown = shown
    if "pycolmap" not in sys.modules:  # or it is too late
        os.environ |= _ENVIRONMENT
        _kept = True


def log_colmap_to(path: Path) -> None:
    """Where it goes from the next `hush_colmap` on: it is appended to this file, in a folder that may be written."""
    global _file
    _file = path


def hush_colmap() -> None:
    """COLMAP logs to stderr, its errors too, which say what we say in words of our own: shown only where asked for.

    To be called before COLMAP does anything that it may have something to say about.
    """
    import pycolmap

    log = pycolmap.logging
    path = _writable(_file) if _kept else None
    log.minloglevel = (log.Level.INFO if _shown or path is not None else log.Level.FATAL).value
    if not _kept:
        return
    log.alsologtostderr = _shown
    log.stderrthreshold = (log.Level.INFO if _shown else log.Level.FATAL).value
    for level in (log.Level.INFO, log.Level.WARNING, log.Level.ERROR, log.Level.FATAL):
        # the file of a level holds those above it, too
        log.set_log_destination(level, str(path) if path is not None and level == log.Level.INFO else "")


def _writable(path: Path | None) -> Path | None:
    """The file, if it can be one: glog would complain about it."""
    if path is None or (path.exists() and not path.is_file()):
        return None
    with suppress(OSError), path.open("ab"):
        return path
    return None
