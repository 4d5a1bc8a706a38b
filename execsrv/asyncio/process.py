# Written by tests/facades.py from execsrv.client.process: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from execsrv._log.entries import Closed, Exited
from execsrv._portal.awaiting import Held, Items, Opening
from execsrv._portal.awaiting_streams import Input, Output
from execsrv.client.inbox import Part
from execsrv.client.parameters import Data
from execsrv.client.process import DEFAULT_GRACE_SECONDS
from execsrv.client.process import Process as TrioProcess
from execsrv.client.reading import Event
from execsrv.client.result import Result
from execsrv.client.screen import Screen
from execsrv.client.text import MAX_LINE_BYTES
from execsrv.client.waiting import Happened, Pattern
from execsrv.protocol import ProcessSnapshot, Reason, SignalTarget
from execsrv.protocol.sandbox import Confined, Denial

if TYPE_CHECKING:
    from execsrv.asyncio.screen import WatchedScreen


class Process(Held, of=TrioProcess):
    """A started command. Made by `Client.start`; ended, with everything below it, when that block is left.

    Each stream of its output is read once, in order: by one task at a time, which goes on where the last one stopped.
    While nobody reads, the command blocks once the window is full, as with any pipe; other commands go on.

    Every call raises `ConnectionLostError` when there is no way back to the server. Cancelling a call stops waiting;
    whether the server still does what was asked is then unknown, unless the call's documentation says more.
    """

    @property
    def confined(self) -> Confined | None:
        """The confinement that it has: its layers, and what its policy names but could not get. None without one."""
        return self._get("confined")

    @property
    def stdin(self) -> Input:
        """Its input."""
        return self._get("stdin")

    async def communicate(
        self,
        input: Data | str | None = None,
        *,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        max_bytes: int | None = None,
        truncate: bool = False,
    ) -> Result[Any]:
        """Write `input` and end the command's stdin, collect its output to the end, and return the result.

        A pipe is ended without an input too; a terminal, where nothing ends by itself, only with one.

        Each stream is kept up to `max_bytes` (64 MiB). More is an `OutputTruncatedError`, unless it may `truncate`:
        then the beginning and the end are kept. What is no text, where that is asked for, is an `OutputNotTextError`.
        Both errors, and `ConnectionLostError`, have what had arrived.

        Without `text`, `encoding` and `errors`, those of the start apply. Cancelling stops waiting, not the process;
        what was collected is lost.
        """
        return await self._wait(
            "communicate", input, text=text, encoding=encoding, errors=errors, max_bytes=max_bytes, truncate=truncate
        )

    async def write(self, data: Data | str) -> None:
        """Write to its stdin, and wait until the operating system took it. Raises `StdinClosedError`.

        Text is for a process that was started for it. Input may be of any size: it goes piece by piece, as the command
        reads. Another `write` waits until this one is done. Cancelling stops waiting; a part of the input may still
        arrive.
        """
        return await self._wait("write", data)

    async def close_stdin(self) -> None:
        """End its input, after all that was written. A terminal gets its end-of-file character.

        Raises `StdinClosedError` for a process that was started without an input.
        """
        return await self._wait("close_stdin")

    async def send_signal(self, signal: str | int, target: SignalTarget = "group") -> int:
        """Send a signal, by name or number, and return how many processes it was sent to.

        `target` is the started process ("leader"), its process group, the job in front of its terminal ("foreground"),
        or everything that descends from it ("tree").

        Raises `InvalidParamsError` for an unknown signal, and `ConnectionLostError` when it is not known whether it
        arrived.
        """
        return await self._wait("send_signal", signal, target)

    async def interrupt(self) -> None:
        """Send SIGINT to its process group, as Ctrl-C does without job control."""
        return await self._wait("interrupt")

    async def terminate(self, grace: float = DEFAULT_GRACE_SECONDS) -> bool:
        """Send SIGTERM to it and all that descends from it, and kill what is left after `grace` seconds.

        Return whether the leader was still running, without waiting for its end. A grace of 0 is `kill`.
        """
        return await self._wait("terminate", grace)

    async def kill(self) -> bool:
        """End it and everything that descends from it by force.

        Return whether the leader was still running, without waiting for its end.
        """
        return await self._wait("kill")

    def leave_running(self) -> None:
        """Let it go on when its block is left, until its connection ends. This is for a connection that is kept.

        Its output then waits for nobody. `Client.attach` comes back to it. Raises `InvalidParamsError` if its streams
        were passed: they end with the block.
        """
        return self._plain("leave_running")

    async def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
        """Change the size of its terminal, in characters and, if that is known, in pixels.

        Raises `InvalidParamsError` for a process that has no terminal, and for an invalid size.
        """
        return await self._wait("resize", rows, cols, xpixel, ypixel)

    async def snapshot(self) -> ProcessSnapshot:
        """Return what the server retains: how the process stands, and the beginning and the end of each stream."""
        return await self._wait("snapshot")

    @property
    def before(self) -> Any:
        """Output in front of the last match of `expect`, or all of it without a match."""
        return self._get("before")

    @before.setter
    def before(self, value: Any) -> None:
        self._inner.before = value

    @property
    def after(self) -> Any:
        """Output that matched, or `EOF` or `TIMEOUT`."""
        return self._get("after")

    @after.setter
    def after(self, value: Any) -> None:
        self._inner.after = value

    @property
    def match(self) -> Any:
        """Match of the regular expression, or the string, or `EOF` or `TIMEOUT`."""
        return self._get("match")

    @match.setter
    def match(self, value: Any) -> None:
        self._inner.match = value

    @property
    def match_index(self) -> int | None:
        """Number of the pattern that matched."""
        return self._get("match_index")

    @match_index.setter
    def match_index(self, value: int | None) -> None:
        self._inner.match_index = value

    @property
    def searchwindowsize(self) -> int | None:
        """Distance before the newest output in which a match is looked for where `expect` names none. None: everywhere."""
        return self._get("searchwindowsize")

    @searchwindowsize.setter
    def searchwindowsize(self, value: int | None) -> None:
        self._inner.searchwindowsize = value

    @property
    def buffer(self) -> Any:
        """Output that has arrived and that nobody has read yet, up to where some is missing. It stays there.

        Text ends before a character that is not whole. Raises `UnicodeDecodeError`.
        """
        return self._get("buffer")

    async def expect(self, patterns: Any, timeout: float | None = -1, searchwindowsize: int | None = -1) -> int:
        """Read until one of the patterns matches, and return its number. Cancelling loses nothing.

        Patterns are regular expressions, in which a dot is any character, compiled or not, and `EOF` and `TIMEOUT`. Of
        several that match, the one that begins first counts, and then the first named. `timeout` is in seconds, 30 by
        default and None for no bound. `before`, `after` and `match` have the details; what comes after the match is for
        the next reader.

        Raises `EOF` at the end of the output and `TIMEOUT`, unless they are among the patterns; `InvalidParamsError`
        and `TypeError` for something that is not a pattern; and otherwise as `lines` does.
        """
        return await self._take("expect", patterns, timeout, searchwindowsize)

    async def expect_exact(self, patterns: Any, timeout: float | None = -1, searchwindowsize: int | None = -1) -> int:
        """Do what `expect` does, for literal strings instead of patterns. Cancelling loses nothing."""
        return await self._take("expect_exact", patterns, timeout, searchwindowsize)

    async def expect_list(
        self, pattern_list: list[Any], timeout: float | None = -1, searchwindowsize: int | None = -1
    ) -> int:
        """Do what `expect` does, for a list that `compile_pattern_list` has returned. Cancelling loses nothing."""
        return await self._take("expect_list", pattern_list, timeout, searchwindowsize)

    def compile_pattern_list(self, patterns: Any) -> list[Any]:
        """Return patterns compiled, for many calls of `expect_list`. Raises `InvalidParamsError` and `TypeError`."""
        return self._plain("compile_pattern_list", patterns)

    async def send(self, text: Data | str) -> int:
        """Write to its stdin, text in its encoding, and return how many bytes that were. Raises as `write` does."""
        return await self._wait("send", text)

    async def sendline(self, text: Data | str = "") -> int:
        """Write a line to its stdin, with its end, and return how many bytes that were."""
        return await self._wait("sendline", text)

    async def sendcontrol(self, key: str) -> int:
        r"""Type a key together with Ctrl: a letter, or one of `@[\]^_?`."""
        return await self._wait("sendcontrol", key)

    async def sendeof(self) -> None:
        """End its input. A terminal gets its end-of-file character."""
        return await self._wait("sendeof")

    async def sendintr(self) -> None:
        """Interrupt it: by Ctrl-C on a terminal, by SIGINT to its process group without one."""
        return await self._wait("sendintr")

    async def waitnoecho(self, timeout: float | None = -1) -> bool:
        """Wait until its terminal does not show what is typed, and return False when `timeout` is over first."""
        return await self._wait("waitnoecho", timeout)

    async def wait_for(
        self,
        *,
        output: Pattern | list[Pattern] | None = None,
        port: int | None = None,
        host: str | None = None,
        idle: float | None = None,
        exit: bool = False,
        tree_empty: bool = False,
        no_echo: bool = False,
        input: bool = False,
        timeout: float | None = None,
        after: Happened | None = None,
    ) -> Happened:
        """Wait for the first of these, beside all readers, and return which it was. Cancelling loses nothing.

        `output` is a regular expression, or several, for bytes or text. What the server retains counts too, or with an
        `after` that was returned before, what lies after that. `port` accepts connections on the server's machine, on
        its loopback or on the address `host`. `idle` is a silence of that many seconds from now on. `exit` is the end
        of the leader, `tree_empty` the end of everything, `no_echo` a terminal that does not show what is typed.
        `input` is a process of it that waits for input, and for nothing else: `Happened.input` says which process, and
        in which system call.

        A command whose output nobody reads goes on meanwhile, as with `wait`.

        Raises `WaitTimeoutError` after `timeout` seconds, `ProcessEndedError` when it ended before, both with its last
        output; `InvalidParamsError`, `ConnectionLostError`.
        """
        return await self._take(
            "wait_for",
            output=output,
            port=port,
            host=host,
            idle=idle,
            exit=exit,
            tree_empty=tree_empty,
            no_echo=no_echo,
            input=input,
            timeout=timeout,
            after=after,
        )

    async def screen(self) -> Screen:
        """Return what a person would see on its terminal now, beside all readers. Needs `execsrv[screen]`.

        It is drawn from what the server retains, and goes on at the next call. Cancelling loses nothing. Raises
        `InvalidParamsError` for a process without a terminal.
        """
        return await self._take("screen")

    def watch_screen(self, *, answers: bool = False) -> Opening[WatchedScreen]:
        """Keep its screen up to date for as long as a block lasts, in which it can be looked at without asking the
        server.

        With `answers`, the program also gets what it asks its terminal for, such as the place of the cursor.
        """
        return self._enter("watch_screen", answers=answers)

    async def interact(
        self,
        escape_character: str | None = "\x1d",
        *,
        input_filter: Callable[[bytes], bytes] | None = None,
        output_filter: Callable[[bytes], bytes] | None = None,
        stdin: int = 0,
        stdout: int = 1,
    ) -> None:
        """Connect this program's terminal with it, until its end or the escape character, Ctrl-] by default.

        Keys go to it as they are typed, and the size of this terminal is passed on. The filters may change what passes.
        What comes after the escape is for the next reader.
        """
        return await self._wait(
            "interact",
            escape_character,
            input_filter=input_filter,
            output_filter=output_filter,
            stdin=stdin,
            stdout=stdout,
        )

    @property
    def stdout(self) -> Output:
        """Its output, or all that its terminal shows, as a stream that reads ahead."""
        return self._get("stdout")

    @property
    def stderr(self) -> Output:
        """Its errors. Nothing comes where they have no pipe of their own."""
        return self._get("stderr")

    async def wait(self) -> Exited:
        """Wait for the end of the leader. Cancelling stops waiting, not the process.

        While no other task reads its output, the oldest output is let go as far as the window is exceeded, so that the
        process can end. A later reader learns of it: by a `Gap` among the events, otherwise by an
        `OutputTruncatedError`. If a task that has read before still runs, the output is kept for it.

        Raises `ConnectionLostError`, and `trio.ClosedResourceError` after the block of `start` or `attach`, if the
        process had not ended in it.
        """
        return await self._wait("wait")

    async def next_event(self) -> Event | None:
        """Return the next event: output, exit and close, in order; None when all is over. Cancelling loses nothing.

        Raises `ConnectionLostError` after all that has arrived, `trio.BusyResourceError` while another task is reading,
        and `trio.ClosedResourceError` after the block of `start`.
        """
        return await self._take("next_event")

    def events(self) -> Items[Event]:
        """Iterate over all events, from here to the end. Cancelling loses nothing.

        A reader that stops may be followed by another, which goes on where it stopped. While one reads, another is
        `trio.BusyResourceError`.
        """
        return self._iterate("events")

    @property
    def output(self) -> Items[bytes]:
        """Iterator over all output as it comes, stdout and stderr alike, until both are at their end."""
        return self._items(self._inner.output, "output")

    def lines(
        self,
        stream: Part | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        max_bytes: int = MAX_LINE_BYTES,
    ) -> Items[str]:
        r"""Iterate over the lines of a stream, "stdout" or "stderr", or of both as they come, each in one piece.

        A line comes without its end, which is "\n", "\r\n" or "\r"; the last one needs none. `encoding` and `errors`
        are those of the start, by default UTF-8 and "strict". Cancelling loses nothing.

        Raises `UnicodeDecodeError`, and `LimitExceededError` for a line of more than `max_bytes`: the line can still be
        read in another way. Raises `OutputTruncatedError` where output is missing that nobody had given up.
        """
        return self._iterate("lines", stream, encoding=encoding, errors=errors, max_bytes=max_bytes)

    def text(self, stream: Part | None = None, *, encoding: str | None = None, errors: str | None = None) -> Items[str]:
        """Iterate over the characters of a stream, or of both, in pieces as they come. Line ends stay as they are.

        It raises as `lines` does. Cancelling loses nothing.
        """
        return self._iterate("text", stream, encoding=encoding, errors=errors)

    @property
    def id(self) -> str:
        """Name of the process in `process/*`."""
        return self._get("id")

    @property
    def argv(self) -> list[str]:
        """Command as it was started."""
        return self._get("argv")

    @property
    def pid(self) -> int | None:
        """Pid of the leader, on the server's machine. None if the server does not report it."""
        return self._get("pid")

    @property
    def exit_code(self) -> int | None:
        """Exit code of the leader, 128+N after its death by signal N. None while it runs."""
        return self._get("exit_code")

    @property
    def denial(self) -> Denial | None:
        """Why its failure is put down to its confinement. None if it is not, and while it runs."""
        return self._get("denial")

    @property
    def returncode(self) -> int | None:
        """Exit code of the leader as `subprocess` has it: -N after its death by signal N. None while it runs."""
        return self._get("returncode")

    @property
    def signal(self) -> str | None:
        """Name of the signal that the leader died of, such as "SIGKILL". None if it did not, and while it runs."""
        return self._get("signal")

    @property
    def reason(self) -> Reason | None:
        """Cause of the leader's end: "exited", "signaled", or why the server ended it. None while it runs."""
        return self._get("reason")

    @property
    def closed(self) -> Closed | None:
        """End of everything: how much each stream carried and what lives on. None before."""
        return self._get("closed")
