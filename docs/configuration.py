"""Writes the tables of configuration.md, from the fields themselves: `python docs/configuration.py`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from execsrv._cli.settings import CLIENT_SETTINGS, SETTINGS, Setting

PAGE = Path(__file__).with_name("configuration.md")
MARK = "<!-- tables -->\n"
_STAYS = " To change it, start the server again."


def written(page: str) -> str:
    """Return the page with its tables as they should be."""
    text = page.partition(MARK)[0] + MARK
    for group, settings in groupby(SETTINGS.values(), key=lambda setting: setting.group):
        text += f"\n### {group}\n\n{table(settings)}"
    text += "\n## Settings of a client\n\n"
    text += "They are the fields of `execsrv.ClientConfig`, and neither options nor variables.\n\n"
    return text + table(CLIENT_SETTINGS.values())


def table(settings: Iterable[Setting]) -> str:
    """Return a table of settings."""
    text = "| name | default | bounds | meaning |\n| --- | --- | --- | --- |\n"
    for setting in settings:
        unit = " s" if setting.unit == "seconds" else ""
        bounds = f" {setting.bounds}{unit}" if setting.bounds else ""
        meaning = f"{setting.description}{_STAYS if setting.needs_restart else ''}"
        text += f"| `{setting.name}` | {setting.show(setting.default)}{unit} |{bounds} | {meaning} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
