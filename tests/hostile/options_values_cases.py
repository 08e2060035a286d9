"""Every option of the command line with values that it should not take, or hardly; and every Python function."""

import dataclasses
import random
from functools import partial
from pathlib import Path

from hostile import small_job
from hostile.case import Case

from sfm_match.options.base import flag
from sfm_match.options.localize import LocalizeOptions
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import ExtractOptions, ImportOptions, MatchOptions, ReconstructOptions

GROUPS = {
    "extract": ExtractOptions,
    "pairs": PairsOptions,
    "match": MatchOptions,
    "import": ImportOptions,
    "reconstruct": ReconstructOptions,
    "localize": LocalizeOptions,
}
FIELDS = {command: list(dataclasses.fields(group)) for command, group in GROUPS.items()}
VALUES = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1",
    "1e400",
    "1e-400",
    "2147483647",
    "2147483648",
    "9223372036854775808",
    str(10**30),
    "-" + "9" * 40,
    "1.5",
    "0x10",
    "1_000",
    "１２",
    "x" * 100_000,
    "a\nb",
    "\x1b[31m",
    "é",
    "\udcff",
    "../..",
    "/dev/null",
    "/dev/zero",
    "None",
    "true",
    "[]",
    "{}",
    "a,b",
    "1,1",
    "cpu,cpu,cpu",
    "800,800",
    "nan,nan,nan,nan",
    "0,0,0,0",
    "-1,-1,-1,-1",
    "1e308,1e308,0,0",
    "*",
    "%s",
    "auto+auto",
]
TAKES_LONG = {"tile": "1", "workers": "2147483647"}  # are bounded elsewhere


def _option(command: str, name: str, value: str, folder: Path) -> list[str]:
    if command == "localize":
        query = sorted((small_job.base() / "images").iterdir())[0]
        small_job.work(folder)
        return [command, str(query), "--workspace", str(folder / "work"), flag(name), value]
    return small_job.run(folder, None, flag(name), value)


_SWITCHES = (bool, bool | None)
_PLACES = [(command, f.name) for command, fields in FIELDS.items() for f in fields if f.type not in _SWITCHES]


def _case(command: str, name: str, value: str) -> Case:
    shown = value if len(value) < 40 else f"{value[:10]}... of {len(value)}"
    return Case(f"{command} {flag(name)} {shown!r}", "options", partial(_option, command, name, value))


COMMANDS: dict[str, list[str]] = {
    "nothing": [],
    "unknown": ["runn"],
    "no images": ["run"],
    "images empty": ["run", "--images", ""],
    "images missing": ["run", "--images", "nowhere"],
    "images a device": ["run", "--images", "/dev/null"],
    "images /proc": ["run", "--images", "/proc/self/fd"],
    "workspace a device": ["run", "--images", ".", "--workspace", "/dev/null"],
    "workspace /proc": ["run", "--images", ".", "--workspace", "/proc/x"],
    "workspace empty": ["run", "--images", ".", "--workspace", ""],
    "long workspace": ["run", "--images", ".", "--workspace", "w" * 5000],
    "demo of 10^20": ["demo", "--views", str(10**20)],
    "demo of 0": ["demo", "--views", "0"],
    "demo of -1": ["demo", "--views", "-1"],
    "demo of 2^31": ["demo", "--views", "2147483648"],
    "convert": ["convert"],
    "convert unknown": ["convert", "--to", "x", "--out", "o"],
    "convert twice": ["convert", "--to", "ply", "--from", "hloc"],
    "infer missing": ["infer", "a.jpg", "b.jpg"],
    "infer folder": ["infer", ".", "."],
    "infer device": ["infer", "/dev/zero", "/dev/zero"],
    "localize nothing": ["localize"],
    "localize missing": ["localize", "x.jpg"],
    "report missing": ["report", "--workspace", "nowhere"],
    "doctor missing": ["doctor", "--workspace", "nowhere"],
    "doctor a file": ["doctor", "--workspace", "/etc/passwd"],
    "cubemap missing": ["cubemap", "--images", "x", "--out", "y"],
    "models unknown": ["models", "path", "x" * 1000],
    "models escape": ["models", "verify", "\x1b[31m"],
    "not UTF-8": ["run", "--images", "caf\udce9"],
    "surrogate option": ["run", "--\udcff"],
    "bench of nothing": ["bench", "--num-keypoints", ""],
    "bench of -1": ["bench", "--num-keypoints", "-1", "--backends", "ort"],
    "bench size 0": ["bench", "--img-size", "0", "0"],
    "export to nowhere": ["export", "onnx", "--model", "x", "--out", "/dev/null/x"],
}


def _plain(arguments: list[str], _: Path) -> list[str]:
    return arguments


def _viz(name: str, folder: Path) -> list[str]:
    first, second = sorted(small_job.photos(folder).iterdir())[:2]
    return [
        "infer",
        str(first),
        str(second),
        "--size",
        "160",
        "--viz",
        str(first) if name == "itself" else str(folder / name),
    ]


def _same_photo(folder: Path, _: object) -> str:
    first = sorted((folder / "photos").iterdir())[0]
    return (
        ""
        if first.read_bytes() == (small_job.base() / "images" / first.name).read_bytes()
        else "a photograph was overwritten"
    )


PYTHON = [
    "None",
    "object()",
    "b'x'",
    "1.5",
    "-1",
    "[]",
    "{}",
    "True",
    "lambda: 0",
    "10**30",
    "float('nan')",
    "'x'",
    "''",
    "set()",
    "__import__('numpy').array([1, 2])",
    "__import__('numpy').float32('nan')",
    "3+4j",
    "range(3)",
    "'no'",
    "__import__('pathlib').Path('x')",
    "'\\ud800'",
    "'a\\0b'",
    "type",
    "...",
    "__import__('numpy').int64(160)",
    "__import__('numpy').str_('x')",
]
FUNCTIONS = {
    "extract": "sfm_match.extract({images}, {work}, {option})",
    "pairs": "sfm_match.pairs({work}, {option})",
    "match": "sfm_match.match({work}, {option})",
    "import": "sfm_match.import_({work}, {option})",
    "reconstruct": "sfm_match.reconstruct({work}, {option})",
}
ARGUMENTS = [
    "sfm_match.run({value})",
    "sfm_match.run({images}, {value})",
    "sfm_match.extract({value}, {work})",
    "sfm_match.report({value})",
    "sfm_match.open({value})",
    "sfm_match.run({images}, {work}, extract={value})",
    "sfm_match.run({images}, {work}, pairs={value})",
    "sfm_match.open({work}).features({value})",
    "sfm_match.open({work}).matches({value}, 'view04.jpg')",
    "sfm_match.import_({work}, {value})",
]


def _script(code: str, option: str, value: str, folder: Path) -> list[str]:
    work = small_job.work(folder)
    given = {
        "images": repr(str(small_job.base() / "images")),
        "work": repr(str(work)),
        "value": value,
        "option": f"{option}={value}",
    }
    return ["-c", f"import sfm_match; {code.format(**given)}"]


def _python(code: str, option: str, value: str) -> Case:
    title = code.replace("{option}", f"{option}={value}").replace("{value}", value)
    return Case(f"python {title}", "python", partial(_script, code, option, value))


CASES = [
    *(Case(f"command: {title}", "commands", partial(_plain, arguments)) for title, arguments in COMMANDS.items()),
    *(
        Case(f"infer --viz {name}", "commands", partial(_viz, name), check=_same_photo)
        for name in ("itself", "x", "x.txt", "x.exe", "no/x.png", "/dev/full", ".", "x.jpg/y.png")
    ),
    *(_python(code, "", value) for code in ARGUMENTS for value in PYTHON[:22]),
]


def generate(seed: int) -> list[Case]:
    """Thirty options of the command line and twenty of Python, each with a value."""
    dice = random.Random(f"options {seed}")
    cases: dict[str, Case] = {}
    while len(cases) < 30:
        command, name = dice.choice(_PLACES)
        one = _case(command, name, dice.choice(VALUES))
        cases[one.name] = dataclasses.replace(one, name=f"{one.name} (seed {seed})")
    while len(cases) < 50:
        command = dice.choice(list(FUNCTIONS))
        one = _python(FUNCTIONS[command], dice.choice(FIELDS[command]).name, dice.choice(PYTHON))
        cases[one.name] = dataclasses.replace(one, name=f"{one.name} (seed {seed})")
    return list(cases.values())
