"""Makes the pictures of the README and the documentation again, from the scene of `sfm-match demo`.

    python scripts/make_pictures.py build/pictures

The demo runs in that folder, once. The report needs Chromium to be shown; without it, its picture stays as it is.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2

import sfm_match

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "images"
PAIR = ("view03.jpg", "view07.jpg")
SELECTED = 5  # place of the image whose matches the report shows
QUALITY = 72  # of WebP
WINDOW = (1280, 1500)  # pixels


def shrunk(source: Path, name: str, width: int) -> None:
    """Writes a picture of a command as a small file for the documentation."""
    picture = cv2.imread(str(source))
    if picture is None:
        raise SystemExit(f"{source}: cannot be read")
    size = width, round(picture.shape[0] * width / picture.shape[1])
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    target = OUT / name
    cv2.imwrite(str(target), small, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    print(f"{target.relative_to(ROOT)}: {size[0]} x {size[1]}, {target.stat().st_size / 1000:.0f} kB")


def show_report(page_of: Path, picture: Path) -> bool:
    """A picture of the report, an image selected and one of its pairs shown. False without a browser."""
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import browser, find_browser

    program = find_browser()
    if program is None:
        return False
    with browser(program) as page:
        page.open(page_of, width=WINDOW[0], height=WINDOW[1])
        page.until("window.viewer && viewer.model")
        page.evaluate(f"select({SELECTED}, PARTNERS.get({SELECTED})[0])")
        page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        time.sleep(2)  # for what is drawn as it comes in sight
        page.picture(picture)
    return True


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="folder of the demo")
    demo: Path = parser.parse_args().workspace
    if not (demo / "sparse" / "0").exists():
        sfm_match.demo(demo)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        a, b = (demo / "images" / name for name in PAIR)
        sfm_match.infer(a, b, made / "pair.png")
        sfm_match.report(demo, png=made / "model.png")
        shrunk(made / "pair.png", "matches.webp", 1200)
        shrunk(made / "model.png", "model.webp", 1200)
        sfm_match.report(demo)
        if show_report(demo / "report.html", made / "report.png"):
            shrunk(made / "report.png", "report.webp", 1000)


if __name__ == "__main__":
    main()
