"""Writes the tables of configuration.md, from the fields themselves: `python docs/configuration.py`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from execsrv._cli.settings import ALL, SETTINGS

PAGE = Path(__file__).with_name("configuration.md")
MARK = "<!-- tables -->\n"


def written(page: str) -> str:
    """The page with its tables as they should be."""
    text = page.partition(MARK)[0] + MARK
    # The client's come last.
    for group, settings in groupby((SETTINGS | ALL).values(), key=lambda setting: setting.group):
        text += f"\n### {group}\n\n"
        if group == "Client":
            text += "No settings of a daemon: only `execsrv.Limits` has them.\n\n"
        text += "| name | default | bounds | meaning |\n| --- | --- | --- | --- |\n"
        for setting in settings:
            unit = " s" if setting.unit == "seconds" else ""
            bounds = f" {setting.bounds}{unit}" if setting.bounds else ""
            text += f"| `{setting.name}` | {setting.show(setting.default)}{unit} |{bounds} | {setting.description} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
