"""Declare a command with the options of all commands, and with those of jobs that take the lease."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from jobs.cli.help import Command
from jobs.cli.options import session_of
from jobs.cli.session import LeaseOptions

# A command's arguments are its own.
Function = Callable[..., int]

# Only declared here: `run` reads it from the arguments before they are parsed.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
_WAIT = Annotated[
    bool, typer.Option("--wait", help="Wait while another job works on this lake, instead of ending.")
]
_NO_LEASE = Annotated[
    bool,
    typer.Option(
        "--no-lease", help="Take no lease: make sure yourself that no other job runs at the same time."
    ),
]
_TAKE_LEASE = Annotated[
    bool,
    typer.Option(
        "--take-lease", help="Take over a lease that is unreadable, or that ends later than a lease can."
    ),
]
_OF_LEASE = {"wait": _WAIT, "no_lease": _NO_LEASE, "take_lease": _TAKE_LEASE}
_OF_ALL = {"json": Json}


def command(
    app: typer.Typer, *shown: str, name: str | None = None, lease: bool = False
) -> Callable[[Function], Function]:
    """Add a function to the program as a command, whose help ends with the command lines that are shown.

    With `lease` the command has the options of the lease, which are then in its session.
    """
    added = {**(_OF_LEASE if lease else {}), **_OF_ALL}

    def add(function: Function) -> Function:
        own = inspect.signature(function, eval_str=True)

        @wraps(function)
        def called(context: typer.Context, **values: Any) -> int:
            chosen = {option: values.pop(option) for option in added}
            if lease:
                session_of(context).lease = LeaseOptions(*(chosen[option] for option in _OF_LEASE))
            return function(context, **values)

        options = [_option(option, annotation) for option, annotation in added.items()]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.parameters.values()]
        # Typer reads the options of a command from the signature of its function.
        called.__signature__ = own.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
        app.command(name, cls=Command, epilog=examples(*shown))(called)
        return function

    return add


def examples(*commands: str) -> str:
    """Return the end of a command's help: command lines to copy."""
    # The first character keeps the lines from being filled up.
    return "\n".join(["\b", "Example:" if len(commands) == 1 else "Examples:", *(f"  {c}" for c in commands)])


def _option(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
