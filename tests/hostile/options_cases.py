"""Values of every option of every stage that are out of bounds, of other types, or nothing at all.

Made from the options themselves, so that a new one is tried, too. The folder of photographs is not there: a command
ends with a line of one of the two, whatever is right about the value.
"""

import dataclasses
import random
from functools import partial
from pathlib import Path

from hostile.case import REFUSED, Case

from sfm_match.options.base import Options, fields_of, flag
from sfm_match.options.localize import LocalizeOptions
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import GROUPS, ExtractOptions, ImportOptions, MatchOptions, ReconstructOptions

NUMBERS = {
    "huge": "9" * 30,
    "digits": "9" * 5000,
    "int32": str(1 << 31),
    "negative": "-1",
    "least": str(-(1 << 63)),
    "nan": "nan",
    "inf": "inf",
    "exponent": "1e400",
    "word": "many",
    "empty": "",
    "hexadecimal": "0x10",
    "list": "1,2",
}
TEXTS = {
    "empty": "",
    "long": "x" * 100_000,
    "escape": "\x1b[31mred\x07",
    "lines": "a\nb",
    "not UTF-8": "caf\udce9",
    "flag": "--images",
    "path": "/" + "x/" * 3000,
}
COMMANDS: dict[str, tuple[type[Options], ...]] = {
    "extract": (ExtractOptions,),
    "pairs": (PairsOptions,),
    "match": (MatchOptions,),
    "import": (ImportOptions,),
    "reconstruct": (ReconstructOptions,),
    "localize": (LocalizeOptions,),
    "run": GROUPS,
}
SOME = 40  # of a seed
NO_WORKSPACE = ["--workspace", "nowhere"]


def _make(command: str, name: str, value: str, _folder: Path) -> list[str]:
    begin = {"localize": ["missing.jpg"], "run": ["--images", "missing"], "extract": ["--images", "missing"]}
    return [command, *begin.get(command, []), *NO_WORKSPACE, f"{flag(name)}={value}"]


def _cases() -> list[Case]:
    found = []
    for command, groups in COMMANDS.items():
        for name, field in fields_of(command, groups).items():
            kind = str(field.type)
            if "bool" in kind:
                continue
            values = NUMBERS if "int" in kind or "float" in kind else TEXTS
            if command == "run":  # the same options once more: only what differs in a whole run
                values = {key: values[key] for key in ("empty", "huge", "escape") if key in values}
            found += [
                Case(
                    f"{command} {flag(name)} {key}",
                    "options of stages",
                    partial(_make, command, name, value),
                    frozenset({2, 3}),
                )
                for key, value in values.items()
            ]
    return found


def _yaml(name: str, value: str, folder: Path) -> list[str]:
    (folder / "job.yaml").write_bytes(f"{name}: {value}\n".encode(errors="surrogateescape"))
    return ["run", "--images", "missing", *NO_WORKSPACE, "--config", "job.yaml"]


YAML_VALUES = {
    "list": "[1, 2]",
    "mapping": "{a: 1}",
    "null": "null",
    "date": "2020-13-45",
    "huge": "9" * 30,
    "nan": ".nan",
    "text": "'\\e[31m'",
}


def _yaml_cases() -> list[Case]:
    return [
        Case(f"yaml {name} {key}", "options in YAML", partial(_yaml, name, value), REFUSED)
        for name in fields_of("run", GROUPS)
        for key, value in YAML_VALUES.items()
    ]


EVERY = [*_cases(), *_yaml_cases()]  # more than a thousand: each seed takes some


def generate(seed: int) -> list[Case]:
    """Some of them."""
    chosen = random.Random(seed).sample(EVERY, SOME)
    return [dataclasses.replace(case, name=f"{case.name}, seed {seed}") for case in chosen]
