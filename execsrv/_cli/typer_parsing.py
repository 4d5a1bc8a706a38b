"""Reads the words of a command line by typer: for all commands but those whose start counts.

The functions that typer reads its parameters from are made from the register. Typer tells the words of options from
arguments; what they mean, and what is said of mistakes, is the same as for the others.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from execsrv._cli.parsing import HELP, Given, HelpWantedError, settled
from execsrv._cli.register.kinds import Argument, Command, Option
from execsrv._cli.usage import UsageError, unknown

_WRONG: Any = typer.BadParameter.__base__
"""The error that typer raises for any mistake, whichever release it is."""


class _Command(typer.core.TyperCommand):
    """A command whose help is ours."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Leave it to the caller. Raises `HelpWantedError`."""
        raise HelpWantedError


def parsed(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """Return the options and arguments by their keys. Raises `UsageError` and `HelpWantedError`."""
    names = [name for option in command.options for name in option.names]
    given: Given = {}

    def take(**values: Any) -> None:
        meanings: list[Any] = [option.value for option in command.options]
        words = [option.names[0] for option in command.options] + [argument.name for argument in command.arguments]
        for number, (name, value) in enumerate(zip(words, values.values(), strict=True)):
            if value is not None and value is not False and value != []:
                given[name] = list(value) if isinstance(value, list) else [meanings[number] if value is True else value]

    parameters = [
        inspect.Parameter(f"p{number}", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for number, (annotation, default) in enumerate(
            [*map(_of_option, command.options), *map(_of_argument, command.arguments)]
        )
    ]
    take.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    take.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(
        cls=_Command, context_settings={"help_option_names": list(HELP), "allow_interspersed_args": command.mixed}
    )(take)
    try:
        app(list(words), prog_name=f"execsrv {command.name}", standalone_mode=False)
    except _WRONG as error:
        wrong = getattr(error, "option_name", None)
        if type(error).__name__ == "NoSuchOption" and wrong is not None:
            raise unknown("option", wrong, [*names, *HELP]) from None
        text = " ".join(error.format_message().rstrip(".").split())
        raise UsageError(f"{text[:1].lower()}{text[1:]}") from None
    return settled(command, given, os.environ)


def _of_option(option: Option) -> tuple[Any, Any]:
    if option.kind is None:
        return Annotated[bool, typer.Option(*option.names)], False
    word = option.kind.metavar
    if option.many:
        return Annotated[list[str], typer.Option(*option.names, metavar=word)], []
    return Annotated[str | None, typer.Option(*option.names, metavar=word)], None


def _of_argument(argument: Argument) -> tuple[Any, Any]:
    text: Any = list[str] if argument.many else str
    if argument.needed:
        return Annotated[text, typer.Argument(metavar=argument.label)], inspect.Parameter.empty
    return Annotated[text | None, typer.Argument(metavar=argument.label)], None
