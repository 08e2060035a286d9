"""COLMAP's side: cameras, database, reconstruction. pycolmap is imported only here, inside functions."""

_quiet = True


def let_colmap_speak() -> None:
    """Shows COLMAP's own log from now on."""
    global _quiet
    _quiet = False


def hush_colmap() -> None:
    """COLMAP logs every pair to stderr; errors alone are shown unless asked otherwise."""
    import pycolmap

    if _quiet:
        pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
