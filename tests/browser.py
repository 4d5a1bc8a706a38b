"""A headless browser with one page, driven by the protocol of its developer tools, and a server that has a page."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

import execsrv
from execsrv import ServerConfig
from tests.conftest import OpenServer
from tests.peers import PATIENCE
from tests.test_tokens import write

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
OPTIONS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
OPTIONS += " --disable-component-update --disable-sync --remote-debugging-port=0 --window-size=1200,800"

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")


class Served(NamedTuple):
    """A server that has a page."""

    port: int
    tokens: dict[str, str]
    """Of an owner, `me`, and of a viewer, `guest`."""
    tokens_file: Path

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


async def open_served(open_server: OpenServer, folder: Path, **settings: Any) -> Served:
    """Serve a page."""
    tokens = write(folder / "tokens", me="owner", guest="viewer")
    server = open_server("websocket", ServerConfig(web=True, token_file=str(folder / "tokens"), **settings))
    return Served(int((await server.url()).rpartition(":")[2]), tokens, folder / "tokens")


class Page:
    """The page. `said` is what it has written to its console, violations of its policy among it."""

    def __init__(self, socket: WebSocketConnection, numbers: Any) -> None:
        self._socket = socket
        self._numbers = numbers
        self.session: str | None = None
        self.heard: set[str] = set()
        self.said: list[str] = []

    async def ask(self, method: str, **params: object) -> dict[str, Any]:
        request = {"id": next(self._numbers), "method": method, "params": params}
        await self._socket.send_message(json.dumps(request | ({"sessionId": self.session} if self.session else {})))
        while (answer := await self._receive()).get("id") != request["id"]:
            pass
        assert "result" in answer, answer
        return cast(dict[str, Any], answer["result"])

    async def _receive(self) -> dict[str, Any]:
        message = cast(dict[str, Any], json.loads(await self._socket.get_message()))
        self.heard.add(message.get("method", ""))
        if message.get("method") == "Log.entryAdded":
            self.said.append(message["params"]["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(each.get("value")) for each in message["params"]["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(message["params"]["exceptionDetails"].get("exception", {}).get("description", "?"))
        return message

    async def go(self, url: str) -> None:
        self.heard.discard("Page.loadEventFired")
        await self.ask("Page.navigate", url=url)
        while "Page.loadEventFired" not in self.heard:
            await self._receive()

    async def evaluate(self, script: str) -> Any:
        """Return the value of a script, whose promise is waited for."""
        answer = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until a script has a value that is true, and return it."""
        look = f"const value = ({script}); value ? resolve(value) : setTimeout(look, 30);"
        with trio.move_on_after(PATIENCE):
            return await self.evaluate(f"new Promise(resolve => {{ const look = () => {{ {look} }}; look(); }})")
        raise AssertionError(f"not so: {script}\n{await self.evaluate('document.body.innerText')}\n{self.said}")

    async def type(self, text: str) -> None:
        """Type a text where the focus is."""
        for character in text:
            if character == "\r":
                await self.press("Enter", text="\r", code=13)
            else:
                await self.press(character, text=character)

    async def press(self, key: str, *, text: str = "", code: int = 0, modifiers: int = 0) -> None:
        """Press one key. `modifiers` are 1 for Alt, 2 for Ctrl and 8 for Shift."""
        facts = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def picture(self, path: Path) -> None:
        """Write a screenshot to a file."""
        shot = await self.ask("Page.captureScreenshot")
        await trio.Path(path).write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def shown(url: str, profile: Path) -> AsyncIterator[Page]:
    """Show a page in a browser of its own."""
    assert BROWSER is not None
    argv = [BROWSER, *OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"]
    async with execsrv.connect_in_process() as client, client.start(argv, text=True) as browser:
        tools = None
        async for line in browser.lines("stderr"):
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                tools = found[1]
                break
        assert tools is not None
        async with open_websocket_url(tools) as socket:
            page = Page(socket, count(1))
            target = (await page.ask("Target.createTarget", url="about:blank"))["targetId"]
            page.session = (await page.ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            for domain in ("Page", "Log", "Runtime"):
                await page.ask(f"{domain}.enable")
            await page.go(url)
            yield page
