"""COLMAP's side: cameras, database, reconstruction. pycolmap is imported only here, inside functions."""

_quiet = True


def let_colmap_speak() -> None:
    """Shows COLMAP's own log from now on."""
    global _quiet
    _quiet = False


def hush_colmap() -> None:
    """COLMAP logs to stderr, its errors too, which say what we say in words of our own: shown only where asked for."""
    import pycolmap

    if _quiet:
        pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
