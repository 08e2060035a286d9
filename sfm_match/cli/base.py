"""What every command of the command line shares: options from dataclasses, errors as one line and an exit status."""

import dataclasses
import inspect
import sqlite3
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sfm_match.colmap import let_colmap_speak
from sfm_match.errors import SfmMatchError
from sfm_match.options.base import Options, dashed, run_name

SOME_FAILED, WRONG_USE, NOTHING, INTERRUPTED = 1, 2, 3, 130

AsJson = Annotated[bool, typer.Option("--json", help="one JSON object a stage on stdout")]
Verbose = Annotated[bool, typer.Option("--verbose", help="tracebacks, and COLMAP's own log")]


def _fields_as_parameters(group: type[Options], *, in_run: bool) -> list[inspect.Parameter]:
    parameters = []
    for f in dataclasses.fields(group):
        name = run_name(f) if in_run else f.name
        switch = f.type in (bool, bool | None)
        declaration = f"--{dashed(name)}/--no-{dashed(name)}" if switch else f"--{dashed(name)}"
        choices = f.metadata["choices"]
        text = f.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
        kind: Any = f.type
        annotation = Annotated[kind, typer.Option(declaration, help=text)]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=annotation)
        )
    return parameters


def with_options(*groups: type[Options], in_run: bool = False) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Gives a command the options of some groups, and turns errors into a line and an exit status.

    The command takes its own parameters and `**options`; it returns whether something failed on the way, or None.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        own = inspect.signature(command).parameters.values()
        parameters = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for group in groups:
            known = {p.name for p in parameters}  # stages may share one, as --device
            parameters += [p for p in _fields_as_parameters(group, in_run=in_run) if p.name not in known]
        verbose_option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)

        def call(verbose: bool, **arguments: Any) -> None:
            if verbose:
                let_colmap_speak()
            try:
                failed = command(**arguments)
            except SfmMatchError as error:
                _complain(str(error), verbose)
                raise typer.Exit(error.exit_status) from None
            except (OSError, sqlite3.Error) as error:  # a full disk, a folder without permission
                _complain(f"{error}; what is done stands", verbose)
                raise typer.Exit(NOTHING) from None
            except Exception as error:  # noqa: BLE001 - a bug of ours; the user gets a line all the same
                _complain(f"internal error, please report it: {type(error).__name__}: {error}", verbose)
                raise typer.Exit(NOTHING) from None
            except KeyboardInterrupt:
                _complain("interrupted; what is done stands, the same command goes on from here", verbose)
                raise typer.Exit(INTERRUPTED) from None
            if failed:
                raise typer.Exit(SOME_FAILED)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*parameters, verbose_option)]
        call.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in keyword}
        return call

    return decorate


def _complain(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(f"sfm-match: {' '.join(message.split())}", file=sys.stderr)
