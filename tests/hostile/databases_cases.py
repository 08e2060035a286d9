"""States of database.db and of sparse models: locked, foreign, truncated, newer, lying, damaged."""

import random
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from hostile import small_job
from hostile.case import Case

Damage = Callable[[Path], object]


def _sql(*statements: str | tuple[str, tuple[object, ...]], path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for one in statements:
            connection.execute(*((one,) if isinstance(one, str) else one))
    connection.close()


def _said(*statements: str | tuple[str, tuple[object, ...]]) -> Damage:
    return lambda path: _sql(*statements, path=path)


def _keypoints(value: float, columns: int = 2) -> Damage:
    blob = np.full((300, columns), value, np.float32).tobytes()
    return _said(("UPDATE keypoints SET rows=300, cols=?, data=? WHERE image_id=1", (columns, blob)))


def _replaced(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _truncated(share: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty_tables(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite%'"
        ).fetchall():
            connection.execute(f"DELETE FROM {name}")
    connection.close()


def _foreign(path: Path) -> None:
    path.unlink()
    _sql("CREATE TABLE songs (id INTEGER, title TEXT)", "INSERT INTO songs VALUES (1, 'x')", path=path)


def _without_journal(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(5000))


LIES: dict[str, Damage] = {
    "keypoints NaN": _keypoints(np.nan),
    "keypoints inf": _keypoints(np.inf),
    "keypoints 1e30": _keypoints(1e30),
    "keypoints -1e5": _keypoints(-1e5),
    "keypoints of 6 columns": _keypoints(1, 6),
    "keypoints of 3 columns": _keypoints(1, 3),
    "keypoints, fewer bytes": _said(("UPDATE keypoints SET data=?", (b"123",))),
    "keypoints, none": _said("DELETE FROM keypoints WHERE image_id=1"),
    "keypoints null": _said("UPDATE keypoints SET data=NULL WHERE image_id=2"),
    "rows 10^12": _said("UPDATE keypoints SET rows=1000000000000"),
    "rows -1": _said("UPDATE keypoints SET rows=-1"),
    "cols text": _said("UPDATE keypoints SET cols='x'"),
    "matches beyond": _said(
        ("UPDATE two_view_geometries SET data=?, rows=50, cols=2", (np.full((50, 2), 10**6, np.uint32).tobytes(),))
    ),
    "matches, fewer bytes": _said(("UPDATE two_view_geometries SET data=?", (b"123",))),
    "matches rows": _said("UPDATE two_view_geometries SET rows=10000000"),
    "matches null": _said("UPDATE two_view_geometries SET data=NULL"),
    "raw matches beyond": _said(
        ("UPDATE matches SET data=?, rows=50, cols=2", (np.full((50, 2), 2**32 - 1, np.uint32).tobytes(),))
    ),
    "geometry NaN": _said(("UPDATE two_view_geometries SET F=?, E=?, H=?", (np.full(9, np.nan).tobytes(),) * 3)),
    "geometry short": _said(("UPDATE two_view_geometries SET F=?, E=?", (b"1", b"2"))),
    "config 99": _said("UPDATE two_view_geometries SET config=99"),
    "config -1": _said("UPDATE two_view_geometries SET config=-1"),
    "pose NaN": _said(
        ("UPDATE two_view_geometries SET qvec=?, tvec=?", (np.full(4, np.nan).tobytes(), np.full(3, np.nan).tobytes()))
    ),
    "pair of nobody": _said("UPDATE two_view_geometries SET pair_id=pair_id+2147483647*1000"),
    "pair negative": _said("UPDATE two_view_geometries SET pair_id=-pair_id"),
    "camera params NaN": _said(("UPDATE cameras SET params=?", (np.full(4, np.nan).tobytes(),))),
    "camera params short": _said(("UPDATE cameras SET params=?", (b"1",))),
    "camera params zero": _said(("UPDATE cameras SET params=?", (bytes(32),))),
    "camera model 999": _said("UPDATE cameras SET model=999"),
    "camera width 10^12": _said("UPDATE cameras SET width=1000000000000"),
    "camera width 0": _said("UPDATE cameras SET width=0, height=0"),
    "camera width -1": _said("UPDATE cameras SET width=-1"),
    "no cameras": _said("DELETE FROM cameras"),
    "no images": _said("DELETE FROM images"),
    "no frames": _said("DELETE FROM frames"),
    "no frame data": _said("DELETE FROM frame_data"),
    "no rigs": _said("DELETE FROM rigs"),
    "image names": _said("UPDATE images SET name='../../' || name"),
    "image name null": _said("DELETE FROM images WHERE image_id=1"),
    "image of no camera": _said("UPDATE images SET camera_id=77"),
    "image name blob": _said(("UPDATE images SET name=? WHERE image_id=1", (b"\xff\xfe",))),
    "no geometries": _said("DELETE FROM two_view_geometries"),
    "no table keypoints": _said("DROP TABLE keypoints"),
    "no table images": _said("DROP TABLE images"),
    "newer": _said("PRAGMA user_version=99999"),
    "much newer": _said("PRAGMA user_version=2147483647"),
    "older": _said("PRAGMA user_version=1"),
    "empty tables": _empty_tables,
    "foreign": _foreign,
    "a trigger": _said("CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END"),
    "journal of others": _without_journal,
}
STATES: dict[str, Damage] = {
    "empty": partial(_replaced, b""),
    "text": partial(_replaced, b"no database\n" * 99),
    "only a header": partial(_replaced, b"SQLite format 3\x00" + bytes(84)),
    "zeros": partial(_replaced, bytes(20_000)),
    "folder": _folder,
    "missing": Path.unlink,
    "half": partial(_truncated, 0.5),
    "almost whole": partial(_truncated, 0.97),
    "a page": partial(_truncated, 0.03),
}
COMMANDS: dict[str, tuple[tuple[str, ...], Callable[[Path], list[str]]]] = {
    "run": ((), small_job.run),
    "run anew": (("sparse",), small_job.run),
    "reconstruct": (("sparse",), lambda f: small_job.command("reconstruct", f, "--mapper-threads", 1)),
    "import": ((), lambda f: small_job.command("import", f)),
    "report": ((), lambda f: small_job.command("report", f)),
    "doctor": ((), lambda f: small_job.command("doctor", f)),
    "second round": ((), lambda f: small_job.command("pairs", f, "--strategy", "transitive+repair")),
    "localize": ((), lambda f: small_job.command("localize", f, sorted((small_job.base() / "images").iterdir())[0])),
    "hloc": ((), lambda f: small_job.command("convert", f, "--to", "hloc", "--out", f / "out")),
    "global": (("sparse",), lambda f: small_job.command("reconstruct", f, "--mapper", "global", "--mapper-threads", 1)),
}


def _broken(damage: Damage, command: str, folder: Path) -> list[str]:
    without, arguments = COMMANDS[command]
    work = small_job.work(folder, *without)
    for journal in work.glob("database.db-*"):
        journal.unlink()
    damage(work / "database.db")
    return arguments(folder)


def _hold(folder: Path, seconds: float = 6) -> None:
    """Another program writes in the database all the time."""
    connection = sqlite3.connect(folder / "work" / "database.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    connection.close()


def _locked(command: str, folder: Path) -> list[str]:
    without, arguments = COMMANDS[command]
    small_job.work(folder, *without)
    return arguments(folder)


# models


def _model_bytes(name: str, change: Callable[[bytearray], bytes | bytearray], model: Path) -> None:
    path = model / f"{name}.bin"
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))


def _count(value: int, content: bytearray) -> bytearray:
    content[:8] = struct.pack("<Q", value)
    return content


def _floats(value: float, content: bytearray) -> bytearray:
    for place in range(24, len(content) - 8, 8 * 7):
        content[place : place + 8] = struct.pack("<d", value)
    return content


CHANGES: dict[str, Callable[[bytearray], bytes | bytearray]] = {
    "empty": lambda _: b"",
    "half": lambda c: c[: len(c) // 2],
    "one byte less": lambda c: c[:-1],
    "more bytes": lambda c: c + bytes(99),
    "2^63 entries": partial(_count, 2**63),
    "10^9 entries": partial(_count, 10**9),
    "none": partial(_count, 0),
    "one more entry": lambda c: _count(struct.unpack("<Q", c[:8])[0] + 1, c),
    "NaN here and there": partial(_floats, float("nan")),
    "inf here and there": partial(_floats, float("inf")),
    "zeros": lambda c: bytes(len(c)),
    "text": lambda _: b"no model\n" * 99,
    "ones": lambda c: b"\xff" * len(c),
}
READERS: dict[str, Callable[[Path], list[str]]] = {
    **{
        f"convert {to}": partial(lambda to, f: small_job.command("convert", f, "--to", to, "--out", f / "out"), to)
        for to in ("undistorted", "nerfstudio", "colmap-text", "bundler", "ply", "hloc")
    },
    **{name: COMMANDS[name][1] for name in ("run", "report", "localize", "doctor")},
    "known poses": lambda f: small_job.command("reconstruct", f, "--known-poses", f / "model", "--overwrite"),
    "poses": lambda f: small_job.command(
        "pairs", f, "--strategy", "poses", "--reference-model", f / "model", "--overwrite"
    ),
    "covisibility": lambda f: small_job.command(
        "pairs", f, "--strategy", "covisibility", "--reference-model", f / "model", "--overwrite"
    ),
}


GIVEN = ("known poses", "poses", "covisibility")  # read a model that an option names


def _model(damage: Damage, reader: str, folder: Path) -> list[str]:
    work = small_job.work(folder)
    shutil.copytree(work / "sparse" / "0", folder / "model")
    damage(folder / "model" if reader in GIVEN else work / "sparse" / "0")
    return READERS[reader](folder)


def _gone(name: str, model: Path) -> None:
    (model / f"{name}.bin").unlink()


def _wrong_bytes(seed: str, model: Path) -> None:
    dice = random.Random(seed)
    path = dice.choice(sorted(model.glob("*.bin")))
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 3, 20])):
        content[dice.randrange(len(content))] = dice.randrange(256)
    path.write_bytes(content)


_DATABASES = {**LIES, **STATES}
_MODELS = [
    *(
        (f"{name}, {title}", partial(_model_bytes, name, change))
        for name in small_job.MODELS
        for title, change in CHANGES.items()
    ),
    *((f"{name} missing", partial(_gone, name)) for name in small_job.MODELS),
]
CASES = [
    *(
        Case(
            f"database, {list(COMMANDS)[(i + j * 3) % len(COMMANDS)]}: {title}",
            "databases",
            partial(_broken, damage, list(COMMANDS)[(i + j * 3) % len(COMMANDS)]),
        )
        for i, (title, damage) in enumerate(_DATABASES.items())
        for j in range(3)
    ),
    *(
        Case(f"database locked: {command}", "databases", partial(_locked, command), during=_hold, seconds=40)
        for command in COMMANDS
    ),
    *(
        Case(
            f"model, {list(READERS)[(i * 2 + j * 5) % len(READERS)]}: {title}",
            "models",
            partial(_model, damage, list(READERS)[(i * 2 + j * 5) % len(READERS)]),
        )
        for i, (title, damage) in enumerate(_MODELS)
        for j in range(3)
    ),
]


def _database_bytes(seed: str, path: Path) -> None:
    dice, content = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 4, 40])):
        content[dice.randrange(dice.choice([100, 4096, len(content)]))] = dice.randrange(256)
    path.write_bytes(content)


def generate(seed: int) -> list[Case]:
    """Wrong bytes in a database, and in a model."""
    dice, cases = random.Random(f"databases {seed}"), []
    for n in range(5):
        command, reader = dice.choice(list(COMMANDS)), dice.choice(list(READERS))
        damage, wrong = partial(_database_bytes, f"{seed} {n}"), partial(_wrong_bytes, f"{seed} {n}")
        cases.append(
            Case(f"database, {command}: wrong bytes {n} (seed {seed})", "databases", partial(_broken, damage, command))
        )
        cases.append(Case(f"model, {reader}: wrong bytes {n} (seed {seed})", "models", partial(_model, wrong, reader)))
    return cases
