"""What options are made of: a frozen dataclass a stage, with a help text and a check for every field.

The command line, the YAML file of `run` and the Python functions take these fields by the same names.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from sfm_match.errors import UsageError, found, nearest, quoted
from sfm_match.store.regular import read_regular

T = TypeVar("T")
AUTO = "auto"
WHOLE_RUNS = ("run", "plan")  # commands that take the options of every stage
ENGINE = "export engine"  # it needs shapes and networks, not photographs' content
_ABOUT = "about"  # key of a field's metadata
_LONGEST = 10_000  # characters of a value
_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes, as file systems take them


@dataclass(frozen=True)
class Refused:
    """Commands that do not take an option, or some of its values: their help leaves them out."""

    by: tuple[str, ...]  # commands, as on the command line
    values: tuple[str, ...] = ()  # of the option's choices; empty: the option as a whole
    instead: str = ""  # what to do, at the end of the error; {value} is what was given


Check = Callable[[Any, str], None]  # of a value, not None, and of what names it: raises UsageError


@dataclass(frozen=True)
class Bounds:
    """A `Check`: between what a number must be. Numbers that COLMAP takes as int32 have bounds within it."""

    least: float
    most: float
    unit: str = ""
    kind: str = ""  # what it is, before the bounds: "a share"
    above: bool = False  # `least` itself is not accepted
    below: bool = False  # `most` itself is not accepted

    def __contains__(self, value: float) -> bool:
        return (self.least < value if self.above else self.least <= value) and (
            value < self.most if self.below else value <= self.most
        )  # false for NaN, too

    def __str__(self) -> str:
        least, most = (f"{one:,}" if isinstance(one, int) else f"{one:g}" for one in (self.least, self.most))
        kind = f"{self.kind}, " if self.kind else ""
        unit = f" {self.unit}" if self.unit else ""
        lower, upper = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{kind}{lower} {least} and {upper} {most}{unit}"

    def __call__(self, value: float, where: str) -> None:
        require(value in self, f"{where} {quoted(value)}: must be {self}")


def read_limited(path: Path, largest: int, where: str) -> bytes:
    """The bytes of a regular file: a pipe might never end.

    Raises:
        FileNotFoundError: there is none.
        UsageError: it cannot be read, or is larger than `largest` bytes; `where` names it.
    """
    try:
        return read_regular(path, largest)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error


def file_is_there(path: Path, where: str) -> None:
    _require_path(Path.is_file, path, f"{where} {quoted(path)}: no such file")


def folder_is_there(path: Path, where: str) -> None:
    _require_path(Path.is_dir, path, f"{where} {quoted(path)}: no such folder")


def something_is_there(path: Path, where: str) -> None:
    _require_path(Path.exists, path, f"{where} {quoted(path)}: no such folder or file")


def _require_path(there: Callable[[Path], bool], path: Path, message: str) -> None:
    try:
        found = there(path)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UsageError(f"{message} ({error.strerror})") from None
    require(found, message)


THREADS = Bounds(0, 1024, "(0: one per core)")
COUNT = Bounds(1, 1_000_000)
INT32 = (1 << 31) - 1


@dataclass(frozen=True)
class About:
    """What is known of an option beside its type and default."""

    help: str
    choices: tuple[str, ...] = ()
    joined: bool = False
    fingerprinted: bool = True
    default: str = ""
    aliases: tuple[str, ...] = ()
    refused: Refused | None = None
    check: Check | None = None
    bare: str | None = None

    def choices_in(self, command: str) -> tuple[str, ...]:
        """The accepted values in a command."""
        refused = self.refused.values if self.refused is not None and command in self.refused.by else ()
        return tuple(choice for choice in self.choices if choice not in refused)

    def parts(self, value: Any) -> list[Any]:
        """The choices that a value names."""
        return value.split("+") if self.joined else [value]


def option(
    default: T,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    joined: bool = False,
    fingerprinted: bool = True,
    default_is: str = "",
    aliases: tuple[str, ...] = (),
    refused: Refused | None = None,
    check: Check | None = None,
    bare: str | None = None,
) -> T:
    """A field with its help text.

    Args:
        default: the default value.
        help: one line, with the unit.
        choices: the accepted values, where they are few.
        joined: whether several choices may be given, joined by +.
        fingerprinted: whether the value changes results. Values that do not may differ from one run to the next.
        default_is: what happens by default, in words, where the default is None.
        aliases: earlier names. They go on working, unlisted, wherever such a name means one option only.
        refused: commands that do not take the option, or some of its values.
        check: of a value by itself, `Bounds` of a number; what depends on other options is in `validate`.
        bare: the value where the command line gives the option without one.
    """
    about = About(help, choices, joined, fingerprinted, default_is, aliases, refused, check, bare)
    return field(default=default, metadata={_ABOUT: about})


def about(f: "dataclasses.Field[Any]") -> About:
    """What `option` was told."""
    told: About = f.metadata[_ABOUT]
    return told


@dataclass(frozen=True)
class Options:
    """What all option groups can do.

    Raises:
        UsageError: a value of the wrong type, or one that is not accepted. The message names both and the option.
    """

    title: ClassVar[str]  # of the group, in help texts

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = converted(getattr(self, f.name), f, flag(f.name))
            object.__setattr__(self, f.name, value)
        self.resolve()
        self.validate()

    def resolve(self) -> None:
        """Sets the defaults that depend on other options, before `validate`."""

    def validate(self) -> None:
        """Raises UsageError that names the accepted values."""

    def inputs(self) -> dict[str, Any]:
        """The options that change results, as plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if about(f).fingerprinted}

    def check_for(self, command: str) -> None:
        """Raises UsageError where the command does not take what was chosen."""
        for f in dataclasses.fields(self):
            refused, value = about(f).refused, getattr(self, f.name)
            if refused is None or command not in refused.by or value == f.default:
                continue
            instead = f"; {refused.instead.format(value=value)}" if refused.instead else ""
            if not refused.values:
                raise UsageError(f"{flag(f.name)}: not an option of `{command}`{instead}")
            if not set(about(f).parts(value)).isdisjoint(refused.values):
                accepted = ", ".join(about(f).choices_in(command))
                raise UsageError(
                    f"{flag(f.name)} {quoted(value)}: accepted values of `{command}` are {accepted}{instead}"
                )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], given: Self | None = None) -> Self:
        """Takes its own fields out of the options of several groups; others are those of `given`, or defaults."""
        chosen = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        return cls(**chosen) if given is None else dataclasses.replace(given, **chosen)


def fields_of(command: str, groups: Iterable[type[Options]]) -> dict[str, "dataclasses.Field[Any]"]:
    """Name -> field of the options that a command takes. Groups may share one, as `device`."""
    taken: dict[str, dataclasses.Field[Any]] = {}
    for f in (f for group in groups for f in dataclasses.fields(group)):
        refused = about(f).refused
        if refused is None or command not in refused.by or refused.values:
            taken.setdefault(f.name, f)
    return taken


def aliases_of(fields: Mapping[str, "dataclasses.Field[Any]"]) -> dict[str, str]:
    """Earlier name -> name. A name that is another option's, or that was two options', is no alias among them."""
    claims = Counter(alias for f in fields.values() for alias in about(f).aliases)
    return {
        alias: name
        for name, f in fields.items()
        for alias in about(f).aliases
        if claims[alias] == 1 and alias not in fields
    }


def resolve_aliases(values: Mapping[str, Any], fields: Mapping[str, "dataclasses.Field[Any]"]) -> dict[str, Any]:
    """Values by the present names of options.

    Raises:
        UsageError: an option has two values, one by its earlier name.
    """
    aliases, resolved = aliases_of(fields), dict(values)
    for alias, name in aliases.items():
        if alias not in values:
            continue
        value = resolved.pop(alias)
        if resolved.setdefault(name, value) != value:
            raise UsageError(
                f"{flag(alias)} {value}, {flag(name)} {resolved[name]}: two names of one option; give {flag(name)} only"
            )
    return resolved


def options_of(command: str, groups: Iterable[type[Options]], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command by their present names, for `from_mapping` of each group.

    Raises:
        UsageError: a name that the command does not know, with the nearest one, or two values for one option.
    """
    groups = tuple(groups)
    fields = fields_of(command, groups)
    resolved = resolve_aliases(values, fields)
    elsewhere = {f.name for group in groups for f in dataclasses.fields(group)}
    for name in resolved:
        if name in elsewhere and name not in fields:
            raise UsageError(f"{flag(name)}: not an option of `{command}`")
        if name not in fields:
            raise UsageError(f"{command}: unknown option '{name}'{nearest(name, fields)}")
    return resolved


def converted(value: Any, f: "dataclasses.Field[Any]", where: str) -> Any:
    """What Python and YAML users write, as the option's type: for a path, text; for text, a number or a list.

    Args:
        value: what was given.
        f: the option.
        where: names the option in the error.

    Raises:
        UsageError: a value of another type, or one that is not accepted, whatever the other options are.
    """
    value, known = as_type(value, f.type, where, numbers_as_text=not about(f).choices), about(f)
    if value is None:
        return None
    for part in known.parts(value) if known.choices else []:
        if part not in known.choices:
            also = ", or several joined by +" if known.joined else ""
            accepted = f"accepted values are {', '.join(known.choices)}{also}{nearest(part, known.choices)}"
            raise UsageError(f"{where} {quoted(value)}: {accepted}")
    if known.check is not None:
        known.check(value, where)
    return value


def as_type(value: Any, kind: Any, where: str, *, numbers_as_text: bool = True) -> Any:
    """`converted` for any of the types that options have: bool, int, float, str, Path, or None beside one of them.

    numpy's numbers are welcome, and paths of any kind.
    """
    kinds = getattr(kind, "__args__", (kind,))  # Path | None -> (Path, NoneType)
    if value is None and type(None) in kinds:
        return None
    wanted = next(one for one in kinds if one is not type(None))
    number = isinstance(value, Real) and not isinstance(value, bool)
    if wanted is bool and (
        isinstance(value, bool) or type(value).__name__ == "bool"
    ):  # numpy's, which is not loaded here
        return bool(value)
    if wanted is int and number and isinstance(value, Integral):
        return value if isinstance(value, int) else int(value)
    if wanted is float and number:
        return _as_float(value, where)
    if wanted in (str, Path):
        given = found(value) if number and numbers_as_text else value
        if isinstance(given, str | os.PathLike):
            text = _as_text(os.fsdecode(given), where)
            return _as_path(text, where) if wanted is Path else text
    values = value.tolist() if hasattr(value, "tolist") else value  # of a numpy array
    if wanted is str and isinstance(values, list | tuple):
        return _as_text(",".join(map(str, values)), where)
    raise UsageError(f"{where}: expected {wanted.__name__}, found {found(value)}")


def _as_float(value: Any, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UsageError(f"{where}: expected a number below 1e308, found {found(value)}") from None


def _as_text(text: str, where: str) -> str:
    require(len(text) <= _LONGEST, f"{where} {quoted(text)}: longer than {_LONGEST:,} characters")
    return text


def _as_path(text: str, where: str) -> Path:
    """Raises UsageError where it names nothing: an empty text would be the current folder."""
    require(text != "", f"{where}: empty; must be a path ('.' is the current folder)")
    path = Path(text)
    try:
        encoded = [part.encode() for part in path.absolute().parts]
    except UnicodeEncodeError:  # bytes that are no UTF-8: no record could hold the path
        raise UsageError(f"{where} {quoted(path)}: a name that is not UTF-8; rename the folder or file") from None
    except FileNotFoundError:
        raise UsageError(f"{where} {quoted(path)}: the current folder is not there any more") from None
    require("\0" not in text, f"{where} {quoted(path)}: a path with a zero byte")
    fits = all(len(part) <= _LONGEST_NAME for part in encoded) and len(text) <= _LONGEST_PATH
    message = f"a name longer than {_LONGEST_NAME}, or a path longer than {_LONGEST_PATH:,} bytes"
    require(fits, f"{where} {quoted(path)}: {message}")
    return path


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def dashed(name: str) -> str:
    """`max_keypoints` -> `max-keypoints`."""
    return name.replace("_", "-")


def flag(name: str) -> str:
    """`max_keypoints` -> `--max-keypoints`."""
    return "--" + dashed(name)


def require(condition: bool, message: str) -> None:
    """Raises UsageError with the message unless the condition holds."""
    if not condition:
        raise UsageError(message)
