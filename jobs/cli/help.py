"""Help as a person would write it: FILE..., not `{FILE}... <list[str]>`; a range in words, not `[x>=1]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """A command whose help names its arguments and choices without the library's notation of types."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command in the line `Usage:`."""
        parameters: list[Any] = self.get_params(ctx)
        arguments = [_metavar(each) for each in parameters if _is_argument(each)]
        return [self.options_metavar or "", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options."""
        parameters: list[Any] = self.get_params(ctx)
        rows = [(each, *each.get_help_record(ctx)) for each in parameters if not each.hidden]
        arguments = [(_metavar(each), each.help) for each, _, _ in rows if _is_argument(each)]
        options = [
            (name.translate({60: None, 62: None}), text)
            for each, name, text in rows
            if not _is_argument(each)
        ]
        for title, records in (("Arguments", arguments), ("Options", options)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def whole_number(least: int, greatest: int | None = None) -> Callable[[Any], int]:
    """Return a parser of the whole numbers from `least` on, or up to `greatest`. It raises BadParameter for others."""
    span = f"from {least} to {greatest}" if greatest else f"of at least {least}"

    def parse(text: Any) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (greatest is not None and number > greatest):
            raise typer.BadParameter(f"expected a whole number {span}, found {str(text)!r}")
        return number

    return parse


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _metavar(argument: Any) -> str:
    name = f"{argument.metavar}..." if argument.nargs != 1 else argument.metavar
    return str(name if argument.required else f"[{name}]")
