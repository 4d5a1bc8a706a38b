"""Shells and interpreters, command by command."""

from __future__ import annotations

import sys
from contextlib import suppress

import pytest
import trio

import execsrv
from execsrv import InvalidParamsError
from execsrv.client import replwrap
from tests.conftest import Server
from tests.peers import PATIENCE


async def test_a_bash(server: Server) -> None:
    client = await server.client()
    async with replwrap.bash(client) as shell:
        with trio.fail_after(PATIENCE):
            assert await shell.run_command("echo $((6 * 7))") == "42\n"
            assert await shell.run_command("for n in 1 2; do\necho $n\ndone") == "1\n2\n"
            assert await shell.run_command("cd /tmp; X=kept") == ""
            assert await shell.run_command('echo "$PWD $X"; echo error >&2') == "/tmp kept\nerror\n"
            assert await shell.run_command("echo 'a\x0cb\x85c\u2028d';\recho on") == "a\x0cb\x85c\u2028d\non\n"
            assert replwrap.PROMPT not in await shell.run_command("env")
            with pytest.raises(ValueError, match="not complete: 'echo \"begun'"):
                await shell.run_command('echo "begun')
            assert await shell.run_command("echo on") == "on\n"
            with pytest.raises(execsrv.TIMEOUT):
                await shell.run_command("sleep 1000", timeout=0.1)
            await shell.process.sendintr()
            await shell.wait_prompt()
            with pytest.raises(execsrv.EOF):
                await shell.run_command("exit 3")
            assert (await shell.process.wait()).exit_code == 3


async def test_a_long_line_is_run_whole() -> None:
    async with execsrv.connect_in_process() as client, replwrap.bash(client) as shell:
        with trio.fail_after(PATIENCE):
            full = "echo " + "x" * 4090
            assert await shell.run_command(full) == full[5:] + "\n"
            words = "x!'\\t\x03ü" * 1000
            command = f"cat <<'END' &&\n{words}\0\nEND\necho \"$n\" tail"
            assert await shell.run_command(f"n=1\n{command}") == f"{words}\n1 tail\n"
            with suppress(ValueError):  # not every bash shows then that it is not complete
                await shell.run_command('echo "' + "x" * 5000)
            assert await shell.run_command("echo on") == "on\n"


async def test_a_python(server: Server) -> None:
    client = await server.client()
    async with replwrap.python(client, sys.executable) as python:
        with trio.fail_after(PATIENCE):
            assert await python.run_command("6 * 7") == "42\n"
            assert await python.run_command("for n in range(2):\n    print(n, 'ü')\n") == "0 ü\n1 ü\n"
            with pytest.raises(ValueError, match="not complete"):
                await python.run_command("(1,")
            assert await python.run_command("'on'") == "'on'\n"


_DEAF_ONCE = """
import signal
heard = []
def interrupted(*_):
    heard.append(1)
    if len(heard) > 1:
        print("> " * {prompts}, end="", flush=True)
signal.signal(signal.SIGINT, interrupted)
print("> ", end="", flush=True)
while line := input():
    print(". " if line == "(" else line + "> ", end="", flush=True)
"""


@pytest.mark.parametrize("prompts", [1, 2], ids=["lost", "late"])
async def test_an_interrupt_that_is_lost_is_sent_again(prompts: int) -> None:
    script = _DEAF_ONCE.replace("{prompts}", str(prompts))
    async with (
        execsrv.connect_in_process() as client,
        client.start([sys.executable, "-c", script], tty=True, text=True, modes={"echo": False}) as process,
    ):
        with trio.fail_after(PATIENCE):
            shell = await replwrap.wrap(process, "> ", continuation_prompt=". ")
            with pytest.raises(ValueError, match="not complete: '\\('"):
                await shell.run_command("(")
            assert await shell.run_command("on") == "on"


async def test_a_command_that_was_given_up_has_its_output_for_itself() -> None:
    async with execsrv.connect_in_process() as client, replwrap.bash(client) as shell:
        with trio.fail_after(PATIENCE):
            with pytest.raises(execsrv.TIMEOUT):
                await shell.run_command("read line; echo late $line", timeout=0.05)
            await shell.process.sendline("it")
            assert await shell.run_command("echo 0") == "0\n"
            with trio.CancelScope() as scope:
                scope.cancel()
                await shell.run_command("echo never")
            assert await shell.run_command("echo 1") == "1\n"


@pytest.mark.parametrize("kind", ["bash", "python"])
async def test_answers_stay_with_their_commands_whatever_prompts_an_interrupt_draws(kind: str) -> None:
    async with execsrv.connect_in_process() as client:
        opened = replwrap.bash(client) if kind == "bash" else replwrap.python(client, sys.executable)
        wait, say = ("read x", "echo {}") if kind == "bash" else ("x = input()", "{}")
        async with opened as repl:
            with trio.fail_after(PATIENCE):
                with pytest.raises(execsrv.TIMEOUT):
                    await repl.run_command(wait, timeout=0.05)
                await repl.process.sendline("it")
                await repl.process.wait_for(output=r"PROMPT>(?s:.*)PROMPT>")  # it has ended by itself
                await repl.process.sendintr()
                assert [await repl.run_command(say.format(n)) for n in (1, 2)] == ["1\n", "2\n"]
                await repl.process.sendintr()
                assert [await repl.run_command(say.format(n)) for n in (3, 4)] == ["3\n", "4\n"]


async def test_a_command_that_was_given_up_can_be_interrupted() -> None:
    async with execsrv.connect_in_process() as client, replwrap.bash(client) as shell:
        with trio.fail_after(PATIENCE):
            await shell.interrupt()
            with pytest.raises(execsrv.TIMEOUT):
                await shell.run_command("sleep 1000", timeout=0.05)
            await shell.interrupt()
            assert await shell.run_command("echo $?") == "130\n"
            with pytest.raises(execsrv.TIMEOUT):
                await shell.run_command("read x", timeout=0.05)
            await shell.process.sendline("it")
            await shell.process.wait_for(output=r"(?s:PROMPT>.*){4}")  # one that has ended is left alone
            await shell.interrupt()
            assert await shell.run_command("echo $? $x") == "0 it\n"


async def test_what_is_no_text_is_replaced() -> None:
    async with execsrv.connect_in_process() as client:
        async with replwrap.bash(client) as shell:
            assert await shell.run_command(r"printf '\377\n'") == "\ufffd\n"
            assert await shell.run_command("echo 0") == "0\n"
        async with replwrap.bash(client, errors="strict") as shell:
            with pytest.raises(UnicodeDecodeError):
                await shell.run_command(r"printf '\377\n'")


async def test_any_other_over_pipes(server: Server) -> None:
    client = await server.client()
    script = 'prompt=\'old> \'; while printf %s "$prompt" && read -r line; do eval "$line"; done'
    async with client.start(["sh", "-c", script], stdin=True, text=True) as process:
        with trio.fail_after(PATIENCE):
            shell = await replwrap.wrap(process, r"o.d> ", "prompt='{}'")
            assert await shell.run_command("echo one") == "one\n"
            assert repr(shell).startswith("<REPLWrapper '[EXECSRV_PROMPT>' <Process")


async def test_what_cannot_be_wrapped() -> None:
    async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True) as process:
        with pytest.raises(InvalidParamsError, match="process must be started for text"):
            await replwrap.wrap(process, "> ")
    async with execsrv.connect_in_process() as client, replwrap.bash(client) as shell:
        with pytest.raises(ValueError, match="command must not be empty"):
            await shell.run_command("")
        with pytest.raises(TypeError, match="command must be a string, got int"):
            await shell.run_command(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="client must be a Client, got str"):
        async with replwrap.bash("bash"):  # type: ignore[arg-type]
            raise AssertionError("it was started")
