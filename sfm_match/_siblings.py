"""`pairs` and `exports` lie beside this package: a user's own file of that name must not take their place unseen.

Only what Python has loaded already is imported here: this runs whenever `sfm_match` is imported.
"""

import importlib.util
import os
import sys
from itertools import pairwise

_NAMES = ("pairs", "exports")
_USAGE = 2  # exit status: wrong use


def check_siblings() -> None:
    """Sees that the `pairs` and `exports` that Python imports are those beside `sfm_match`.

    Raises:
        ImportError: another file or folder comes first; the message names it.
        SystemExit: the same, where the command line was started, which promises one line and an exit status of 2.
    """
    home = __file__.rsplit(os.sep, 2)[0]
    for name in _NAMES:
        ours, found = f"{home}{os.sep}{name}", _place(name)
        if found == ours or (found is not None and os.path.realpath(found) == os.path.realpath(ours)):
            continue
        if found is None:
            line = f"{ours}: missing; install sfm-match again"
        else:
            line = (
                f"{found}: in the way of sfm-match's own package '{name}'; rename it, start from another folder, or "
                "take its folder off PYTHONPATH"
            )
        if _is_command():
            print(f"sfm-match: {line}", file=sys.stderr)
            raise SystemExit(_USAGE)
        raise ImportError(line, name=name, path=found)


def _place(name: str) -> str | None:
    """The folder of a package, or the file of a module, that is loaded or would be; None where there is none."""
    module = sys.modules.get(name)
    if module is not None:
        folders, file = getattr(module, "__path__", None), getattr(module, "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        folders, file = spec.submodule_search_locations, spec.origin
    return str(next(iter(folders))) if folders else file


def _is_command() -> bool:
    """Started as `sfm-match`, or as `python -m sfm_match`."""
    program = sys.argv[0].replace("\\", "/").rpartition("/")[2] if getattr(sys, "argv", None) else ""
    return program.removesuffix(".exe") == "sfm-match" or ("-m", "sfm_match") in pairwise(sys.orig_argv)
