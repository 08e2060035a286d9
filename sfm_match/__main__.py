"""`sfm-match`, and `python -m sfm_match`: the command line."""

from sfm_match import signals


def start() -> None:
    """A signal while the command line is still being loaded ends it as one does later."""
    with signals.handled():
        from sfm_match.cli.main import main

        main()


if __name__ == "__main__":
    start()
