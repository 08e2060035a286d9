"""Records in JSON, CSV and lists of a workspace: of wrong types, damaged, or something else in their place."""

import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hostile import small_job
from hostile.case import Case

JSONS = ("images.json", "sfm-match.json", "stages.json", "sparse/sfm-match.json")
LISTS = ("pairs.txt", "failed.csv", "unregistered.csv", "report.html", ".lock")
DEEP = "[" * 200_000
WHOLE: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "number": b"7",
    "text": b'"x"',
    "half": b'{"schema": 1, "a": [',
    "deep": DEEP.encode(),
    "deep object": b'{"schema":1,"a":' * 100_000,
    "not UTF-8": b'{"schema": 1, "a": "\xff\xfe"}',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "zeros": bytes(5000),
    "NaN": b'{"schema": NaN}',
    "10^400": b'{"schema": 1e400}',
    "newer": b'{"schema": 99}',
    "schema text": b'{"schema": "1"}',
    "long number": b'{"schema": ' + b"9" * 10_000 + b"}",
    "lone surrogate": b'{"schema": 1, "\\ud800": 1}',
    "binary": bytes(range(256)) * 20,
}
PLACES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "loop": lambda p: p.symlink_to(p.name),
    "dangling link": lambda p: p.symlink_to("nowhere"),
    "pipe": lambda p: os.mkfifo(p),
    "device": lambda p: p.symlink_to("/dev/zero"),
    "nothing": lambda _: None,
}
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "run": small_job.run,
    "import": lambda f: small_job.command("import", f, "--overwrite"),
    "reconstruct": lambda f: small_job.command("reconstruct", f, "--overwrite"),
    "report": lambda f: small_job.command("report", f),
    "doctor": lambda f: small_job.command("doctor", f),
    "localize": lambda f: small_job.command("localize", f, sorted((small_job.base() / "images").iterdir())[0]),
    "plan": lambda f: ["plan", *small_job.run(f)[1:]],
    "python": lambda f: [
        "-c",
        f"import sfm_match; w = sfm_match.open({str(f / 'work')!r}); w.images, w.failed, w.pairs, len(w.models)",
    ],
}


def _damaged(name: str, damage: Callable[[Path], object], command: str, folder: Path) -> list[str]:
    work = small_job.work(folder)
    damage(work / name)
    return COMMANDS[command](folder)


def _content(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _place(make: Callable[[Path], object], path: Path) -> None:
    path.unlink(missing_ok=True)
    make(path)


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**12,
    10**30,
    "",
    "x",
    "../../x",
    "x" * 100_000,
    [],
    {},
    [None],
    {"a": 1},
    float("nan"),
    [[[[1]]]],
    "\u202e\x1b[31m",
)


def _one_value(seed: str, path: Path) -> None:
    """Somewhere in the record, another value, key, or none."""
    dice, record = random.Random(seed), json.loads(path.read_text())
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(record)
    node, key = dice.choice(places)
    if isinstance(node, dict) and dice.random() < 0.2:
        value = node.pop(key)
        if dice.random() < 0.5:
            node[f"{key}x"] = value
    else:
        node[key] = dice.choice(VALUES)
    path.write_text(json.dumps(record))


def _bytes(seed: str, path: Path) -> None:
    dice, content = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 4, 30])):
        if content:
            content[dice.randrange(len(content))] = dice.randrange(256)
    path.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content) + 1)])])


def _case(name: str, title: str, damage: Callable[[Path], object], command: str) -> Case:
    return Case(f"{command} with {name}: {title}", "records", partial(_damaged, name, damage, command))


_FIXED = [
    *((name, title, partial(_content, content)) for name in JSONS for title, content in WHOLE.items()),
    *((name, title, partial(_place, make)) for name in (*JSONS, *LISTS) for title, make in PLACES.items()),
]
# Each damage meets two of the commands, all commands meet each file.
CASES = [
    _case(name, title, damage, list(COMMANDS)[(i * 3 + j * 5) % len(COMMANDS)])
    for i, (name, title, damage) in enumerate(_FIXED)
    for j in range(2)
]


def generate(seed: int) -> list[Case]:
    """Another value in each JSON, wrong bytes in each file."""
    dice, cases = random.Random(f"records {seed}"), []
    for name in JSONS:
        for number in range(4):
            one = partial(_one_value, f"{name} {seed} {number}")
            cases.append(_case(name, f"one value {number} (seed {seed})", one, dice.choice(list(COMMANDS))))
    for name in (*JSONS, *LISTS[:-1]):
        cases.append(
            _case(name, f"wrong bytes (seed {seed})", partial(_bytes, f"{name} {seed}"), dice.choice(list(COMMANDS)))
        )
    return cases
