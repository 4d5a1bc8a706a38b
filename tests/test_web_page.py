"""A person who uses the page of a server, in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import ServerConfig
from tests.browser import Page, Served, needs_browser, open_served, shown
from tests.conftest import OpenServer
from tests.peers import PATIENCE
from tests.relay import open_line
from tests.web import open_web

pytestmark = needs_browser


@pytest.fixture
async def served(open_server: OpenServer, tmp_path: Path) -> Served:
    return await open_served(open_server, tmp_path, resume_grace=60)


@asynccontextmanager
async def inside(served: Served, profile: Path, who: str = "me") -> AsyncIterator[Page]:
    """A browser that has come in by a token."""
    async with shown(f"{served.origin}/", profile) as page:
        await page.evaluate("document.getElementById('token').focus()")
        await page.type(served.tokens[who] + "\r")
        await page.until(STATE + " === 'Connected.'")
        yield page


STATE = "document.getElementById('state').textContent"

SCREEN = """(() => {
    const screen = globalThis.execsrv.screen();
    if (!screen) return "";
    const buffer = screen.terminal.buffer.active;
    const lines = [];
    for (let at = 0; at < buffer.length; at++) lines.push(buffer.getLine(at).translateToString(true));
    return lines.join("\\n").trimEnd();
})()"""


async def sees(page: Page, pattern: str) -> str:
    """Wait until a pattern is on the terminal of a page, and return what it shows."""
    return str(await page.until(f"(shown => /{pattern}/.test(shown) && shown)({SCREEN})"))


async def test_the_door_takes_a_token_and_keeps_it_nowhere(served: Served, tmp_path: Path) -> None:
    async with shown(f"{served.origin}/", tmp_path / "profile") as page:
        assert await page.evaluate("document.activeElement === document.body || document.activeElement.id === 'token'")
        await page.evaluate("document.getElementById('token').focus()")
        await page.type("wrong\r")
        await page.until(STATE + ".includes('it is not one of this server')")
        assert await page.evaluate("document.getElementById('inside').hidden")
        assert await page.evaluate("document.activeElement.id") == "token"
        await page.type(served.tokens["me"] + "\r")
        await page.until(STATE + " === 'Connected.'")
        assert await page.evaluate("[document.getElementById('token').value, location.hash, document.cookie]") == [
            "",
            "",
            "",
        ]
        assert await page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert not [line for line in page.said if "Content Security Policy" in line]


async def test_a_shell_starts_types_and_resizes(served: Served, tmp_path: Path) -> None:
    async with inside(served, tmp_path / "profile") as page:
        await page.evaluate("document.getElementById('new-shell').click()")
        await sees(page, r"[$#] ?$")
        await page.type("stty size; echo gr\u00fc\u00dfe $((6*7))\r")
        shown_text = await sees(page, "gr\u00fc\u00dfe 42")
        size = await page.evaluate("(t => `${t.rows} ${t.cols}`)(globalThis.execsrv.screen().terminal)")
        assert re.search(r"\n\d+ \d+\n", shown_text)  # the page may still be finding its place
        await page.ask("Emulation.setDeviceMetricsOverride", width=900, height=600, deviceScaleFactor=1, mobile=False)
        await page.until("document.querySelector('#connections button[aria-pressed=true]')")
        await page.press("Home", code=36, modifiers=3)  # out of the terminal, by the keyboard
        assert await page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        await page.press("Enter", text="\r", code=13)  # and into it again
        await page.until("document.activeElement.className.includes('xterm-helper-textarea')")
        await page.type("clear; while sleep .1; do stty size; done\r")
        await page.until(f"""((shown, terminal) => {{
            const told = shown.trim().split("\\n").pop();
            return told === `${{terminal.rows}} ${{terminal.cols}}` && told !== "{size}";
        }})({SCREEN}, globalThis.execsrv.screen().terminal)""")
        assert not [line for line in page.said if "Content Security Policy" in line], page.said
        assert not [line for line in page.said if "Error" in line], page.said


async def test_a_recording_is_played(served: Served, tmp_path: Path) -> None:
    cast = tmp_path / "a.cast"
    lines = [{"version": 3, "term": {"cols": 60, "rows": 6}}, [0.1, "o", "\u001b[31mred\u001b[0m and the end"]]
    cast.write_text("".join(json.dumps(line) + "\n" for line in lines) + '[0.1, "o", "cu')
    async with inside(served, tmp_path / "profile") as page:
        await page.evaluate(f"document.getElementById('recording-path').value = {json.dumps(str(cast))}")
        await page.evaluate("document.querySelector('#far-recording button').click()")
        await page.until("document.querySelector('.ap-player')")
        await page.until("document.querySelector('#player').textContent.includes('red and the end')")
        await page.evaluate("document.getElementById('recording-path').value = '/etc/hostname'")
        await page.evaluate("document.querySelector('#far-recording button').click()")
        await page.until("document.getElementById('note').textContent.includes('that is no asciicast')")
        assert not [line for line in page.said if "Content Security Policy" in line], page.said


OPENED = "document.querySelector('#connections button[aria-pressed=true]')"


def text_of(id: str) -> str:
    return f"document.getElementById('{id}').textContent"


async def choose(page: Page, command: str) -> None:
    """Open a session of the list, by a part of its command."""
    found = f"[...document.querySelectorAll('#connections button')].find(b => b.textContent.includes('{command}'))"
    await page.until(found + " !== undefined")
    await page.evaluate(found + ".click()")
    await page.until(OPENED + "?.textContent.includes('" + command + "')")
    await page.until("document.activeElement.className.includes('xterm-helper-textarea')")


async def test_a_session_is_watched_and_typed_into_beside_others(served: Served, tmp_path: Path) -> None:
    me = served.tokens["me"]
    async with (
        execsrv.connect(served.url, name="build", token=me) as owner,
        inside(served, tmp_path / "profile") as page,
    ):
        assert await page.evaluate("document.getElementById('nobody').checkVisibility()")
        argv = ["sh", "-c", "echo to begin; stty -echo; while read line; do echo got $line; done", "<b>sh</b>"]
        async with owner.start(argv, tty=True, size=(30, 100), text=True) as process:
            await choose(page, "to begin")
            await sees(page, "to begin")
            assert await page.evaluate(text_of("pane-title")) == " ".join(argv)
            assert await page.evaluate("document.querySelector('b')") is None
            terminal = "globalThis.execsrv.screen().terminal"
            await page.until(f"{terminal}.rows === 30 && {terminal}.cols === 100")
            await page.type("unseen\r")  # a viewer only watches
            await page.until(text_of("people") + " === 'Here: token me (owner) · you (viewer)'")
            await page.evaluate("document.querySelector('input[value=writer]').click()")
            await page.until(f"!{terminal}.options.disableStdin")
            await page.evaluate(f"{terminal}.focus()")
            await page.type("typed\r")
            await sees(page, "got typed")
            await process.expect("to begin\r\ngot typed\r\n", timeout=PATIENCE)
            await process.resize(20, 90)
            await page.until(f"{terminal}.rows === 20 && {terminal}.cols === 90")
            async with execsrv.connect(served.url, token=me) as third, third.join("build"):
                await page.until(text_of("note") + " === 'token me (execsrv, viewer) has joined.'")
                await page.until(text_of("people") + ".includes('you (writer) · token me, execsrv (viewer)')")
            await page.until(text_of("note") + " === 'token me (execsrv, viewer) has left.'")
            await process.terminate()
            await page.until(text_of("note") + " === 'It has ended: SIGTERM (terminated).'")
            await page.until(OPENED + ".textContent.includes('ended: SIGTERM')")
        assert not [line for line in page.said if "Error" in line or "Policy" in line], page.said


async def test_a_flood_is_drawn_to_its_end_and_interrupted(served: Served, tmp_path: Path) -> None:
    flood = "yes 0123456789 | head -c 3000000; echo; echo all o''ver"  # several windows
    async with (
        execsrv.connect(served.url, name="build", token=served.tokens["me"]) as owner,
        owner.start(["sh", "-c", f"read line; {flood}; read line"], tty=True) as process,
        inside(served, tmp_path / "profile") as page,
    ):
        await page.evaluate("document.getElementById('new-shell').click()")
        await sees(page, r"[$#] ?$")
        await page.type(flood + "\r")
        await sees(page, "\\nall over")
        await page.type("yes\r")
        await sees(page, "(?:y\\n){20}")
        await page.press("c", code=67, modifiers=2)
        await sees(page, r"\^C[^$#]*[$#] ?$")
        await choose(page, "read line")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.expect, "all over", PATIENCE)  # the command waits for its owner
            await process.write(b"\n")
            await sees(page, "\\nall over")


async def test_the_terminal_of_the_owner_alone_answers_a_program(served: Served, tmp_path: Path) -> None:
    async with (
        execsrv.connect(served.url, name="build", token=served.tokens["me"]) as owner,
        inside(served, tmp_path / "profile") as page,
    ):
        ask = r"stty raw -echo; printf '\033[c\033[6n\033]11;?\007\033[?2026$pasked'; exec cat -v"
        async with owner.start(["sh", "-c", ask], tty=True) as asking:
            await choose(page, "asked")
            await page.evaluate("document.querySelector('input[value=writer]').click()")
            await page.until("!globalThis.execsrv.screen().terminal.options.disableStdin")
            await page.evaluate("globalThis.execsrv.screen().terminal.focus()")
            await page.type("x")
            await asking.expect("asked", timeout=PATIENCE)
            await asking.expect("x", timeout=PATIENCE)
            assert asking.before == b""


async def test_a_viewer_sees_what_was_granted_and_no_more(served: Served, tmp_path: Path) -> None:
    async with (
        execsrv.connect(served.url, name="build", token=served.tokens["me"]) as owner,
        owner.start(["sh", "-c", "echo hello; exec cat"], tty=True),
        inside(served, tmp_path / "profile", "guest") as page,
    ):
        await page.until(text_of("who") + " === 'token guest (viewer)'")
        assert await page.evaluate("document.querySelectorAll('#connections button').length") == 0
        for hidden in ("new-shell", "far-recording"):
            assert not await page.evaluate(f"document.getElementById('{hidden}').checkVisibility()")
        grant = await owner.grant("viewer", principal="token guest")
        await choose(page, "hello")
        await sees(page, "hello")
        for hidden in ("role", "end"):
            assert not await page.evaluate(f"document.getElementById('{hidden}').checkVisibility()")
        await owner.revoke(grant.grant_id)
        await page.until(text_of("note") + " === 'You were put out by its owner.'")
        await page.until("document.querySelectorAll('#connections button').length === 0")


async def test_a_line_is_typed_into_a_pipe(served: Served, tmp_path: Path) -> None:
    async with (
        execsrv.connect(served.url, name="build", token=served.tokens["me"]) as owner,
        owner.start(["sed", "-u", "s/^/got /"], stdin=True),
        owner.start(["sh", "-c", "echo deaf; sleep 1000"]),
        inside(served, tmp_path / "profile") as page,
    ):
        for command in ("sed", "deaf"):
            await choose(page, command)
            await page.evaluate("document.querySelector('input[value=writer]').click()")
            await page.until("!globalThis.execsrv.screen().terminal.options.disableStdin")
            await page.evaluate("globalThis.execsrv.screen().terminal.focus()")
            await page.type("hello\r")
            if command == "sed":
                await sees(page, "hello\\ngot hello")
        await page.until(text_of("note") + " === 'Not typed: it reads no input.'")


async def test_it_is_used_by_keyboard_and_everything_has_a_name(served: Served, tmp_path: Path) -> None:
    async with shown(f"{served.origin}/", tmp_path / "profile") as page:
        assert await unnamed(page) == []
        assert await page.evaluate("document.activeElement.id") == "token"
        await page.type(served.tokens["me"] + "\r")
        await page.until(STATE + " === 'Connected.'")
        assert await page.evaluate("document.activeElement.id") == "sessions-title"
        await page.press("Tab", code=9)
        assert await page.evaluate("document.activeElement.id") == "new-shell"
        await page.press("Enter", text="\r", code=13)
        await sees(page, r"[$#] ?$")
        await page.until(OPENED)
        await page.press("Home", code=36, modifiers=3)
        await page.evaluate("document.getElementById('reads-aloud').click()")
        await page.until("document.querySelector('.xterm-accessibility')")
        assert await unnamed(page) == []
        await page.evaluate("document.getElementById('end').focus()")
        await page.press("Enter", text="\r", code=13)
        await page.until("document.getElementById('really').open")
        assert await page.evaluate("document.activeElement.textContent") == "Leave it"
        assert await unnamed(page) == []
        await page.press("Tab", code=9)
        await page.press("Enter", text="\r", code=13)
        await page.until(text_of("note") + ".startsWith('It has ended: ')")
        await page.until("document.activeElement.id === 'close'")  # what had the focus is gone
        await page.press("Enter", text="\r", code=13)
        assert await page.evaluate("document.activeElement.id") == "sessions-title"


async def unnamed(page: Page) -> list[str]:
    """What takes the focus, or is a landmark, a list or a dialog, and has no name for who does not see it."""
    await page.ask("Accessibility.enable")
    nodes = (await page.ask("Accessibility.getFullAXTree"))["nodes"]
    roles = {"button", "textbox", "radio", "checkbox", "dialog", "navigation", "region", "group", "link"}
    shown = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert shown
    return [node["role"]["value"] for node in shown if not node.get("name", {}).get("value")]


async def test_a_narrow_page_shows_the_list_or_what_is_open(served: Served, tmp_path: Path) -> None:
    async with inside(served, tmp_path / "profile") as page:
        await page.ask("Emulation.setDeviceMetricsOverride", width=400, height=700, deviceScaleFactor=1, mobile=True)
        await page.evaluate("document.getElementById('new-shell').click()")
        await sees(page, r"[$#] ?$")
        assert not await page.evaluate("document.querySelector('nav').checkVisibility()")
        await page.press("Home", code=36, modifiers=3)
        assert await page.evaluate("document.activeElement.id") == "close"
        await page.press("Enter", text="\r", code=13)
        await page.until("document.querySelector('#connections button').checkVisibility()")
        assert await page.evaluate("document.documentElement.scrollWidth") == 400


async def test_a_page_of_another_origin_gets_no_socket(served: Served, tmp_path: Path) -> None:
    async with open_web() as web:
        web.page("/", "Content-Type: text/html", body=b"<title>another</title>")
        async with shown(f"{web.url}/", tmp_path / "profile") as page:
            protocols = json.dumps(["execsrv", f"execsrv.token.{served.tokens['me']}"])
            came = f"""new Promise(done => {{
                const socket = new WebSocket({served.url!r}, {protocols});
                socket.onopen = () => done("open");
                socket.onclose = () => done("refused");
            }})"""
            assert await page.evaluate(came) == "refused"
            assert any("Unexpected response code: 403" in line for line in page.said), page.said
            fetched = f"fetch('{served.origin}/').then(() => 'got', () => 'refused')"
            assert await page.evaluate(fetched) == "refused"
            framed = f"""new Promise(done => {{
                const frame = document.createElement("iframe");
                frame.onload = () => done(frame.contentDocument?.title ?? "closed");
                frame.src = '{served.origin}/';
                document.body.append(frame);
            }})"""
            assert await page.evaluate(framed) == "closed"
            assert any("frame-ancestors" in line for line in page.said), page.said


async def test_a_lost_connection_comes_back_with_what_was_printed_meanwhile(served: Served, tmp_path: Path) -> None:
    async with (
        open_line(f"ws://127.0.0.1:{served.port}", "") as line,
        inside(served._replace(port=int(line.url.rpartition(":")[2])), tmp_path / "profile") as page,
    ):
        await page.evaluate("document.getElementById('new-shell').click()")
        await sees(page, r"[$#] ?$")
        await page.type("echo it is $$; (sleep 1; echo mean''while) &\r")
        number = re.findall("it is ([0-9]+)\n", await sees(page, "it is [0-9]+"))[0]
        target, line.target = line.target, None
        line.cut()
        await page.until(STATE + ".startsWith('The connection is lost')")
        async with open_web() as web:  # somebody has the port who refuses: that says nothing of the token
            line.target = web.url.replace("http", "ws")
            await web.was_asked.wait()
            line.target = None
        await page.type("echo typed mean''time\r")
        line.target = target
        await page.until(STATE + " === 'Connected again.'")
        await sees(page, "meanwhile")
        await sees(page, r"\ntyped meantime")
        await page.type("clear; echo still $$\r")
        await sees(page, f"still {number}")
        await page.evaluate("document.getElementById('hang-up').click()")
        await page.until(STATE + ".startsWith('Disconnected. What this page has started goes on for two minutes')")
        assert await page.evaluate("document.activeElement.id") == "token"


async def test_a_network_that_is_silent_is_given_up(served: Served, tmp_path: Path) -> None:
    async with (
        open_line(served.url, "") as line,
        inside(served._replace(port=int(line.url.rpartition(":")[2])), tmp_path / "profile") as page,
    ):
        await page.evaluate("document.getElementById('new-shell').click()")
        await sees(page, r"[$#] ?$")
        line.silence()
        await page.evaluate("((now, from) => { Date.now = () => from + 20 * (now() - from); })(Date.now, Date.now())")
        await page.until(STATE + ".startsWith('The connection is lost')")
        await page.until(STATE + " === 'Connected again.'")
        await page.type("echo still h''ere\r")
        await sees(page, "still here")


async def test_another_server_in_its_place_is_told_and_one_that_refuses_is_the_end(
    served: Served, open_server: OpenServer, tmp_path: Path
) -> None:
    settings = ServerConfig(web=True, token_file=str(served.tokens_file))
    second = await open_server("websocket", settings).url()
    (tmp_path / "others").mkdir()
    third = await open_served(open_server, tmp_path / "others")
    async with (
        open_line(served.url, "") as line,
        inside(served._replace(port=int(line.url.rpartition(":")[2])), tmp_path / "profile") as page,
    ):
        await page.evaluate("document.getElementById('new-shell').click()")
        await sees(page, r"[$#] ?$")
        line.target = second
        line.cut()
        await page.until(STATE + ".startsWith('Connected again, by another connection')")
        await page.until(text_of("note") + " === 'It has ended together with the connection.'")
        line.target = third.url
        line.cut()
        await page.until(STATE + ".startsWith('Disconnected: invalid websocket bearer token')")
        assert await page.evaluate("document.activeElement.id") == "token"
