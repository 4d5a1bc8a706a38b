"""Making one page of a recording: the player, its style and the recording itself in a file that loads nothing else."""

from __future__ import annotations

import errno
import html
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path

from execsrv._wire.paths import part_name

_MOST_SECONDS = 1e9
"""No time in a recording is longer, as `execsrv play` has it."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:"
)
"""All that the page may do, whatever a recording contains: run its own script, and reach nobody."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
<style>body {{ margin: 2em auto; max-width: 70em; padding: 0 1em; font-family: sans-serif; }}</style>
</head>
<body>
<h1>{title}</h1>
<div id="player"></div>
<script>{script}</script>
<script>
const player = AsciinemaPlayer.create({{data: {cast}}}, document.getElementById("player"), {options});
</script>
</body>
</html>
"""


def to_html(
    cast: str | os.PathLike[str],
    page: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    autoplay: bool = False,
) -> Path:
    """Make one page that plays a recording, and return its path: beside it, with `.html`, unless `page` says another.

    The page needs no other file and no network. It begins to play by itself with `autoplay`. `title` is its heading: by
    default the recording's own, or its command.

    It is for those who may read the recording. A last line that was cut, as where its writer was killed, is left out.
    Raises `ValueError` for a file that is no recording, and `OSError`. The page appears whole or not at all.
    """
    cast = Path(cast)
    page = cast.with_suffix(".html") if page is None else Path(page)
    text = cast.read_text(encoding="utf-8", errors="replace")
    header = _header(cast, text)
    if page.exists() and page.samefile(cast):
        raise OSError(errno.EINVAL, "cannot put the page in the place of its recording", str(page))
    player = resources.files("execsrv.record") / "player"
    content = _PAGE.format(
        policy=_POLICY,
        title=html.escape(title or header.get("title") or header.get("command") or cast.stem),
        style=(player / "asciinema-player.css").read_text(encoding="utf-8"),
        script=(player / "asciinema-player.min.js").read_text(encoding="utf-8"),
        cast=_in_script("".join(f"{line}\n" for line in _whole(cast, text))),
        options=_in_script({"autoPlay": autoplay, "fit": "width", "terminalFontSize": "15px"}),
    )
    _write_whole(page, content.encode(), cast.stat().st_mode & 0o666)
    return page


def _header(cast: Path, text: str) -> dict[str, str]:
    with suppress(ValueError, RecursionError):
        header = _JSON.decode(text.partition("\n")[0])
        if isinstance(header, dict) and _has_size(header):
            return {name: value for name, value in header.items() if isinstance(value, str)}
    raise ValueError(f"{cast} is no asciicast: its first line is not the header of one")


def _has_size(header: dict[str, object]) -> bool:
    """Return whether a header is one that the player takes: of a version that it knows, with a size."""
    if header.get("version") == 2:
        return _is_size(header.get("width"), header.get("height"))
    match header:
        case {"version": 3, "term": {"cols": columns, "rows": rows}}:
            return _is_size(columns, rows)
    return False


def _is_size(*sides: object) -> bool:
    return all(type(side) is int and side >= 0 for side in sides)  # to the player, 0 is its own size


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse)
"""Reads what a browser reads: no NaN, and nothing like it."""


def _whole(cast: Path, text: str) -> Iterator[str]:
    """Yield the lines that the player is to read: the header, and the events. Raises `ValueError` for another one."""
    lines = text.rstrip("\n").split("\n")
    yield lines[0]
    for number, line in enumerate(lines[1:], 2):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            event = _JSON.decode(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                return
            event = None
        match event:
            case [int() | float() as at, str(), str()] if type(at) is not bool and abs(at) <= _MOST_SECONDS:
                yield line
            case _:
                raise ValueError(f"{cast} is no asciicast: line {number} is no event of one")


def _in_script(value: object) -> str:
    """Return a value for the text of a script, which no content can end."""
    return json.dumps(value).replace("<", "\\u003c")


def _write_whole(path: Path, content: bytes, mode: int) -> None:
    if path.exists() and not path.is_file():  # a device would be gone
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    unfinished = path.with_name(part_name(path.name))
    try:
        with open(unfinished, "xb", opener=partial(os.open, mode=mode)) as file:
            file.write(content)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
