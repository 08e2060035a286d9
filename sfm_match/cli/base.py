"""What every command of the command line shares: options from dataclasses, errors as one line and an exit status."""

import dataclasses
import errno
import inspect
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, zip_longest
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sfm_match import signals
from sfm_match.colmap import keep_colmap_log
from sfm_match.errors import SfmMatchError, printable
from sfm_match.job.log import show_all, show_on_stderr
from sfm_match.options.base import Options, about, aliases_of, fields_of, flag, resolve_aliases

SOME_FAILED, WRONG_USE, NOTHING, INTERRUPTED = 1, 2, 3, 130
_NO_MEMORY = (
    "not enough memory ({}): give this process more, or a smaller --size, --batch and --workers; completed work is kept"
)
_WORDS_OF_MEMORY = (
    "can't start new thread",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "failed to map segment",
    "Insufficient memory",
    "Resource temporarily unavailable",
)
GENERAL = "General"  # options that are no stage's

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text")]
Verbose = Annotated[bool, typer.Option("--verbose", help="where the time went, tracebacks, and COLMAP's own log")]


class GroupedCommand(TyperCommand):
    """Lists options in groups, each under its help panel's name, in plain text: rich would cost 0.1 s at start-up."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Also refuses empty values: an empty path would be the current folder."""
        for before, word in pairwise(["", *args]):
            if word == "" or (word.startswith("--") and word.endswith("=")):
                name = word[:-1] or (before if before.startswith("-") else "an argument")
                raise typer.BadParameter(f"{name} is empty; must be a value", ctx=ctx)
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                other = "Arguments" if param.param_type_name == "argument" else GENERAL
                groups.setdefault(getattr(param, "rich_help_panel", None) or other, []).append(record)
        for title, records in groups.items():
            with formatter.section(title if len(groups) > 1 else "Options"):
                formatter.write_dl(records)


def _parameters(command: str, groups: tuple[type[Options], ...]) -> list[inspect.Parameter]:
    """An option each, and a hidden one for each earlier name. All are None where they are not given."""
    fields = fields_of(command, groups)
    title = {f.name: group.title for group in reversed(groups) for f in dataclasses.fields(group)}
    parameters = [_parameter(f.name, f, command, rich_help_panel=title[f.name]) for f in fields.values()]
    hidden = [_parameter(alias, fields[name], command, hidden=True) for alias, name in aliases_of(fields).items()]
    return parameters + hidden


def _parameter(name: str, f: "dataclasses.Field[Any]", command: str, **shown: Any) -> inspect.Parameter:
    switch = f.type in (bool, bool | None)
    declaration = f"{flag(name)}/{flag('no-' + name)}" if switch else flag(name)
    choices = about(f).choices_in(command)
    if choices:
        shown["autocompletion"] = lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]
        if not about(f).joined:
            shown["metavar"] = "|".join(choices)
    kind: Any = f.type
    annotation = Annotated[kind | None, typer.Option(declaration, help=_help(f, choices), **shown)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(f: "dataclasses.Field[Any]", choices: tuple[str, ...]) -> str:
    """With the default, as the command line's own options show theirs."""
    text = about(f).help
    if about(f).joined:
        text += f": {', '.join(choices)}, or several joined by +"
    default: Any = f.default
    if default is None:
        default = about(f).default
    elif isinstance(default, bool):
        default = "on" if default else "off"
    elif isinstance(default, float):
        default = f"{default:g}"
    return f"{text}  [default: {default}]" if default != "" else text


def with_bare_values(arguments: Sequence[str], groups: Iterable[type[Options]]) -> list[str]:
    """The command line, with the values of options that may be given without one."""
    bare = {flag(f.name): about(f).bare for group in groups for f in dataclasses.fields(group)}
    filled: list[str] = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        filled.append(argument)
        value = bare.get(argument)
        if value is not None and (following is None or following.startswith("-")):
            filled.append(value)
    return filled


def with_options(*groups: type[Options]) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Gives a command the options of some groups, and turns errors into a line and an exit status.

    The command takes its own parameters and `**options`; it returns whether something failed on the way, or None. Its
    name is the function's: `export_engine` is `export engine`. Where it has a parameter `config`, the options that it
    holds are the defaults of those that the command line does not give.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        name = command.__name__.rstrip("_").replace("_", " ")
        fields = fields_of(name, groups)
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        verbose_option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
        parameters = [*own, verbose_option, *_parameters(name, groups)]
        names = {p.name for p in own}

        def call(verbose: bool, **arguments: Any) -> None:
            show_on_stderr()
            show_all(verbose)
            keep_colmap_log(shown=verbose)
            given = {key: value for key, value in arguments.items() if key not in names and value is not None}
            try:
                options = (arguments.get("config") or {}) | resolve_aliases(given, fields)
                failed = command(**{key: arguments[key] for key in names - {"config"}}, **options)
            except SfmMatchError as error:
                _complain(str(error), verbose)
                raise typer.Exit(error.exit_status) from None
            except (OSError, sqlite3.Error) as error:  # a full disk, a folder without permission
                cure = "raise the limit (ulimit -n); " if getattr(error, "errno", None) == errno.EMFILE else ""
                _complain(f"{error}; {cure}completed work is kept", verbose)
                raise typer.Exit(NOTHING) from None
            except Exception as error:  # noqa: BLE001 - a bug of ours; the user gets a line all the same
                if _of_memory(error):
                    _complain(_NO_MEMORY.format(" ".join(str(error).split())[:200] or "no more there"), verbose)
                    raise typer.Exit(NOTHING) from None
                _complain(f"internal error, please report it: {type(error).__name__}: {error}", verbose)
                raise typer.Exit(NOTHING) from None
            except KeyboardInterrupt:
                signals.say()
                raise typer.Exit(INTERRUPTED) from None
            if failed:
                raise typer.Exit(SOME_FAILED)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        call.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in keyword}
        return call

    return decorate


def _of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, as each library says it."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS_OF_MEMORY)


def _complain(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(f"sfm-match: {printable(' '.join(message.split()))}", file=sys.stderr)
