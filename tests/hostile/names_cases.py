"""Names that break lists, pages, shells and terminals; things in a folder of photographs that are none."""

import os
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from campaign.isolated import Finished
from hostile import small_job
from hostile.case import Case

NAMES = {
    "newline": "a\nb.jpg",
    "carriage return": "a\rb.jpg",
    "tab": "a\tb.jpg",
    "quotes": "a\"b'c.jpg",
    "comma": "a,b.jpg",
    "script": "<script>alert(1)<script>.jpg",
    "image tag": "<img src=x onerror=alert(1)>.jpg",
    "ampersand": "a&amp;b.jpg",
    "not UTF-8": os.fsdecode(b"caf\xe9.jpg"),
    "not UTF-8 at all": os.fsdecode(b"\xff\xfe\x80.jpg"),
    "255 bytes": "n" * 251 + ".jpg",
    "dash": "--help.jpg",
    "spaces": "  a  b  .jpg",
    "dots": "...jpg.jpg",
    "right to left": "\u202egpj.jpg",
    "emoji": "📷🏔.jpg",
    "composed": "é.jpg",
    "escape": "\x1b[31mred\x1b[0m.jpg",
    "bell": "\x07\x01.jpg",
    "percent": "%s%n%d.jpg",
    "braces": "{0}{a}.jpg",
    "shell": "$(touch hacked);`id`.jpg",
    "formula": "=cmd|' C calc'!A0.jpg",
    "backslash": "..\\..\\a.jpg",
    "hash": "a#b?c*.jpg",
    "upper case": "VIEW.JPG",
    "device": "con.jpg",
    "only suffix": ".jpg",
    "none before suffix": " .jpg",
    "colon": "a:b|c.jpg",
    "zero width": "a\u200bb.jpg",
    "line separator": "a\u2028b.jpg",
    "end tag": "</script><script>.jpg".replace("/", "\u2215"),
    "json": '"},{"x":".jpg',
}


def _named(name: str, folder: Path) -> list[str]:
    photos = small_job.photos(folder)
    shutil.copy2(sorted(photos.iterdir())[0], photos / name)
    return small_job.run(folder, photos)


def _nothing_outside(before: set[str], folder: Path, _: Finished) -> str:
    more = {path.name for path in folder.iterdir()} - before
    return f"files outside: {sorted(more)}" if more else ""


def _page_is_safe(folder: Path, ended: Finished) -> str:
    page = folder / "work" / "report.html"
    text = page.read_text(encoding="utf-8", errors="replace") if page.exists() else ""
    for name in ("<script>alert", "<img src=x", "</script><script>.jpg"):
        if name in text:
            return "a name is code in the report"
    return _nothing_outside({"photos", "work"}, folder, ended)


def _fifo(photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")


def _socket(photos: Path) -> None:
    place = Path.cwd()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(photos / "s.jpg", place) if len(str(photos)) > 80 else str(photos / "s.jpg"))


def _deep(photos: Path) -> None:
    place = photos
    for _ in range(60):
        place = place / "deep"
    place.mkdir(parents=True)
    shutil.copy2(sorted(photos.glob("*.jpg"))[0], place / "a.jpg")


def _twins(photos: Path, *names: str) -> None:
    for name, view in zip(names, sorted(photos.glob("*.jpg")), strict=False):
        (photos / name).parent.mkdir(exist_ok=True)
        shutil.copy2(view, photos / name)


def _two_loops(photos: Path) -> None:
    (photos / "a").symlink_to(photos)
    (photos / "b").symlink_to(photos)


def _many_empty(photos: Path) -> None:
    for number in range(300):
        (photos / f"empty{number:03d}.jpg").touch()


THINGS: dict[str, Callable[[Path], object]] = {
    "pipe": _fifo,
    "socket": _socket,
    "link to /dev/zero": lambda p: (p / "z.jpg").symlink_to("/dev/zero"),
    "link to /dev/null": lambda p: (p / "n.png").symlink_to("/dev/null"),
    "link to a terminal": lambda p: (p / "t.png").symlink_to("/dev/tty"),
    "dangling link": lambda p: (p / "gone.jpg").symlink_to("nowhere.jpg"),
    "link to itself": lambda p: (p / "self.jpg").symlink_to("self.jpg"),
    "loop of folders": lambda p: (p / "loop").symlink_to(p),
    "two loops of folders": _two_loops,
    "folder named as a picture": lambda p: (p / "folder.jpg").mkdir(),
    "folder of 60": _deep,
    "hard links": lambda p: os.link(sorted(p.iterdir())[0], p / "twin.jpg"),
    "case twins": lambda p: _twins(p, "A.jpg", "a.jpg"),
    "twins by suffix": lambda p: _twins(p, "a.jpg", "a.jpeg", "a.JPG"),
    "composed and not": lambda p: _twins(p, "\u00e9.jpg", "e\u0301.jpg"),
    "same name in folders": lambda p: _twins(p, "x/a.jpg", "y/a.jpg"),
    "300 empty files": _many_empty,
    "no permission": lambda p: sorted(p.iterdir())[0].chmod(0),
    "other files": lambda p: [
        (p / name).write_bytes(b"x") for name in ("Thumbs.db", ".DS_Store", "a.txt", "a.mp4", "b.mov")
    ],
}


def _thing(make: Callable[[Path], object], folder: Path) -> list[str]:
    photos = small_job.photos(folder)
    make(photos)
    return small_job.run(folder, photos)


def _folders(name: str, folder: Path) -> list[str]:
    """The folder of photographs itself, and the workspace, have the name."""
    photos = folder / f"P{name.replace('.jpg', '')}"
    shutil.copytree(small_job.photos(folder), photos)
    arguments = small_job.run(folder, photos)
    arguments[arguments.index("--workspace") + 1] = str(folder / f"W{name.replace('.jpg', '')}")
    return arguments


def _kept(folder: Path, _: Finished) -> str:
    return "a name was run as a command" if next(folder.rglob("hacked"), None) else ""


def _export(to: str, name: str, folder: Path) -> list[str]:
    """A job with the name in it, already made, is exported."""
    from campaign import isolated

    made = isolated.run(_named(name, folder), folder=folder, seconds=60)
    if made.status not in (0, 1):
        return ["doctor", "--workspace", str(folder / "work")]
    return ["convert", "--to", to, "--out", str(folder / "out"), "--workspace", str(folder / "work")]


CASES = [
    *(Case(f"name: {title}", "names", partial(_named, name), check=_page_is_safe) for title, name in NAMES.items()),
    *(Case(f"thing: {title}", "names", partial(_thing, make)) for title, make in THINGS.items()),
    *(
        Case(f"folder: {title}", "names", partial(_folders, name), check=_kept)
        for title, name in NAMES.items()
        if len(name) < 99
    ),
    *(
        Case(f"export {to}: {title}", "exports", partial(_export, to, NAMES[title]), check=_kept)
        for to in ("hloc", "undistorted", "nerfstudio", "colmap-text", "bundler", "ply")
        for title in ("newline", "quotes", "not UTF-8", "backslash", "spaces", "shell", "json")
    ),
]
