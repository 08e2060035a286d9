"""What options are made of: a frozen dataclass a stage, with a help text and a check for every field.

The command line, the YAML file of `run` and the Python functions take these fields by the same names.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from sfm_match.errors import UsageError, nearest

T = TypeVar("T")
AUTO = "auto"
WHOLE_RUNS = ("run", "plan")  # commands that take the options of every stage
_ABOUT = "about"  # key of a field's metadata


@dataclass(frozen=True)
class Refused:
    """Commands that do not take an option, or some of its values: their help leaves them out."""

    by: tuple[str, ...]  # commands, as on the command line
    values: tuple[str, ...] = ()  # of the option's choices; empty: the option as a whole
    instead: str = ""  # what to do, at the end of the error; {value} is what was given


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
        bare: the value where the command line gives the option without one.
    """
    about = About(help, choices, joined, fingerprinted, default_is, aliases, refused, bare)
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
            choices = about(f).choices
            if value is None or not choices:
                continue
            for part in about(f).parts(value):
                if part not in choices:
                    also = ", or several joined by +" if about(f).joined else ""
                    accepted = f"accepted values are {', '.join(choices)}{also}{nearest(part, choices)}"
                    raise UsageError(f"{flag(f.name)} {value}: {accepted}")
        self.validate()

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
                raise UsageError(f"{flag(f.name)} {value}: accepted values of `{command}` are {accepted}{instead}")

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
        UsageError: a value of another type.
    """
    return as_type(value, f.type, where, numbers_as_text=not about(f).choices)


def as_type(value: Any, kind: Any, where: str, *, numbers_as_text: bool = True) -> Any:
    """`converted` for any of the types that options have: bool, int, float, str, Path, or None beside one of them."""
    kinds = getattr(kind, "__args__", (kind,))  # Path | None -> (Path, NoneType)
    if value is None and type(None) in kinds:
        return None
    wanted = next(one for one in kinds if one is not type(None))
    text: tuple[type, ...] = (str, os.PathLike)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is int and number and isinstance(value, Integral):
        return int(value)
    if wanted is float and number:
        return float(value)
    if wanted in (str, Path) and (isinstance(value, text) or (number and numbers_as_text)):
        return wanted(value if wanted is Path and isinstance(value, text) else str(value))
    if wanted is str and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    raise UsageError(f"{where}: expected {wanted.__name__}, found {value!r}")


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
