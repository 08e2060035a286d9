"""What options are made of: a frozen dataclass a stage, a help text and a check for every field."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from sfm_match.errors import UsageError, nearest

T = TypeVar("T")
AUTO = "auto"
_ALWAYS_THERE = object()  # no value of an option


def option(
    default: T,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    identity: bool = True,
    in_run: str | None = None,
    formerly: Any = _ALWAYS_THERE,
) -> T:
    """A field with its help text.

    Args:
        default: the default value.
        help: one line, with the unit.
        choices: the accepted values, where they are few.
        identity: whether the value changes results. Those that do are fingerprinted; the others may differ from one
            run to the next.
        in_run: the option's name in `run` and in its YAML, where it differs.
        formerly: of an option that came later: the value that does what was done before. It is not recorded, so that
            older workspaces go on with it.
    """
    metadata = {"help": help, "choices": choices, "identity": identity, "in_run": in_run, "formerly": formerly}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """What all option groups can do."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _natural(getattr(self, f.name), f.type))
            choices: tuple[str, ...] = f.metadata["choices"]
            value = getattr(self, f.name)
            if choices and value is not None and value not in choices:
                raise UsageError(
                    f"{flag(f)} {value}: accepted values are {', '.join(choices)}{nearest(str(value), choices)}"
                )
        self.validate()

    def validate(self) -> None:
        """Raises UsageError that names the accepted values."""

    def identity(self) -> dict[str, Any]:
        """The options that change results, as plain JSON values."""
        chosen = {f: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["identity"]}
        return {f.name: _plain(value) for f, value in chosen.items() if value != f.metadata["formerly"]}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], given: Self | None = None) -> Self:
        """Takes its own fields out of `values`, by the names that `run` uses; errors name those, too."""
        names = {run_name(f): f.name for f in dataclasses.fields(cls)}
        try:
            return dataclasses.replace(given or cls(), **{names[k]: v for k, v in values.items() if k in names})
        except UsageError as error:
            message = str(error)
            for f in dataclasses.fields(cls):
                if f.metadata["in_run"]:
                    message = message.replace(f"{flag(f)} ", f"--{dashed(run_name(f))} ")
            raise UsageError(message) from None


def _natural(value: Any, kind: Any) -> Any:
    """What Python and YAML users write for a path or a list of numbers, as the option's type."""
    kinds = kinds_of(kind)
    if Path in kinds and isinstance(value, str):
        return Path(value)
    if str in kinds and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if str in kinds and isinstance(value, int | Path):
        return str(value)
    return value


def kinds_of(kind: Any) -> tuple[Any, ...]:
    """`Path | None` -> (Path, NoneType)."""
    return getattr(kind, "__args__", (kind,))


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def dashed(name: str) -> str:
    """`max_keypoints` -> `max-keypoints`."""
    return name.replace("_", "-")


def flag(f: "dataclasses.Field[Any]") -> str:
    """`max_keypoints` -> `--max-keypoints`."""
    return "--" + dashed(f.name)


def run_name(f: "dataclasses.Field[Any]") -> str:
    """The field's name among all stages' options."""
    return f.metadata["in_run"] or f.name


def require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
