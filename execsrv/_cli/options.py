"""The options of the commands: one for each setting of `serve`, and how a mistake in them ends."""

from __future__ import annotations

from typing import Any

import click

from execsrv._cli.settings import SETTINGS, Setting
from execsrv._cli.streams import say

OWN_FAILURE = 125
"""The exit status of `run` when execsrv itself failed, as in env(1) and docker-run(1)."""

SOME_TIME = click.FloatRange(min=0, min_open=True)


class ServeCommand(click.Command):
    """A command that takes every setting as an option, None where it is not given."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += [_option(setting) for setting in SETTINGS.values()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of all options, the command's own first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            title = SETTINGS[option.name].group if option.name in SETTINGS else "Options"
            sections.setdefault(title, []).extend(filter(None, [option.get_help_record(ctx)]))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class RunCommand(click.Command):
    """A command whose usage errors are one line, and end with a status that is not the one of what it runs."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments. Raises `SystemExit` after saying what is wrong with them."""
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            text = " ".join(error.format_message().rstrip(".").split())
            say(f"execsrv: {text[:1].lower()}{text[1:]}; see `execsrv run --help`")
            raise SystemExit(OWN_FAILURE) from None


def _option(setting: Setting) -> click.Option:
    default = setting.show(setting.default)
    text = f"{setting.description} [default: {default}]" if default else setting.description
    if setting.is_switch:
        return click.Option([f"{setting.flag}/{setting.no_flag}"], default=None, help=text)
    # Text: it is checked in one place, wherever it came from.
    if setting.is_list:
        return click.Option([setting.flag], metavar=setting.facts["metavar"], multiple=True, help=f"{text} Repeatable.")
    if setting.choices:
        return click.Option([setting.flag], metavar="|".join(setting.choices), help=text)
    word = "URL" if setting.name.endswith("listen") else "TEXT"
    metavar = setting.unit.upper() or ("N" if isinstance(setting.default, int) else word)
    return click.Option([setting.flag], metavar=metavar, help=text)
