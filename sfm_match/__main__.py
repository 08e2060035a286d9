"""`sfm-match`, and `python -m sfm_match`: the command line."""

import gc

from sfm_match import signals


def start() -> None:
    """A signal while the command line is still being loaded ends it as one does later."""
    # what is loaded stays: to look through it again and again takes 0.1 s of a small job
    gc.set_threshold(50_000, 20, 20)
    with signals.handled():
        from sfm_match.cli.main import main

        try:
            main()
        finally:
            gc.freeze()  # memory goes with the process: to look through all of it for garbage first takes 0.2 s


if __name__ == "__main__":
    start()
