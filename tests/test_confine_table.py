"""Tables of system calls, and the two programs that carry them out: each does what the other does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from execsrv._processes import proc
from execsrv._processes.confine import starter
from execsrv._processes.confine.starter import LEADER, READY, REAPER, Interpreter, ReportedError, carry_out
from execsrv._processes.confine.table import MOST_ROWS, Table, TooLargeError

CLONE_PARENT = 0x8000


@pytest.fixture(params=["machine code", "python"])
def by(request: pytest.FixtureRequest) -> Interpreter:
    if request.param == "python":
        return starter.in_python()
    found = starter.in_machine_code()
    if found is None:
        pytest.skip("no file in memory can be executed here, or the machine is another")
    return found


def execute(table: Table, argv: tuple[bytes, ...], env: tuple[bytes, ...] = ()) -> None:
    """Add the last rows: all is done, and exec."""
    table.report(READY)
    table.call("exec", "execve", table.text(argv[0]), table.texts(argv), table.texts(env))


def run(table: Table, by: Interpreter) -> tuple[int, bytes]:
    """Carry it out and return the exit code and the output of the command."""
    read, write = os.pipe()
    try:
        pids = carry_out(table, by, stdio=(0, write, 2))
    finally:
        os.close(write)
    with open(read, "rb") as output:
        text = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(pids.leader, 0)[1]), text


@pytest.fixture(autouse=True)
def _no_children() -> None:
    """Reap what other tests have left."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def children() -> list[int]:
    return proc.children(os.getpid())


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_command_has_the_arguments_and_the_environment_of_the_table_and_nothing_else(by: Interpreter) -> None:
    table = Table()
    script = b"env; ls /proc/self/fd; echo $0 $1; exit 7"
    execute(table, (b"/bin/sh", b"-c", script, b"zero", b"first"), (b"A=1", b"PATH=/usr/bin:/bin"))
    code, said = run(table, by)
    assert code == 7
    *variables, zero, one, two, _, words = [line for line in said.decode().split("\n") if line]
    assert {"A=1", "PATH=/usr/bin:/bin"} <= set(variables) <= {"A=1", "PATH=/usr/bin:/bin", "PWD=" + os.getcwd()}
    assert (zero, one, two, words) == ("0", "1", "2", "zero first")


def test_signals_are_as_in_any_command(by: Interpreter) -> None:
    table = Table()
    execute(table, (b"/bin/cat", b"/proc/self/status"))
    _, said = run(table, by)
    for name in (b"SigBlk", b"SigIgn", b"SigCgt"):
        [mask] = re.findall(name + rb":\s+([0-9a-f]+)", said)
        assert int(mask, 16) & ~(1 << 31 | 1 << 32) == 0, name  # the C library keeps these two for itself


def test_rows_are_carried_out_in_order_until_one_fails(by: Interpreter, tmp_path: Path) -> None:
    before = descriptors()
    table = Table()
    for name in ("one", "two"):
        table.call(f"make {name}", "mkdir", table.text(os.fsencode(tmp_path / name)), 0o755)
    table.call("again", "mkdir", table.text(os.fsencode(tmp_path / "one")), 0o755, optional=True)
    table.call("missing", "chdir", table.text(os.fsencode(tmp_path / "none")))
    table.call("make three", "mkdir", table.text(os.fsencode(tmp_path / "three")), 0o755)
    execute(table, (b"/bin/true",))
    with pytest.raises(ReportedError, match="missing: No such file") as caught:
        carry_out(table, by)
    assert (caught.value.step, caught.value.errno) == ("missing", 2)
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
    assert descriptors() == before
    assert children() == []


def test_a_failing_exec_is_told_as_the_last_step(by: Interpreter, tmp_path: Path) -> None:
    table = Table()
    execute(table, (os.fsencode(tmp_path / "none"),))
    with pytest.raises(ReportedError) as caught:
        carry_out(table, by)
    assert (caught.value.step, caught.value.errno) == ("exec", 2)


def test_descriptors_have_the_numbers_that_the_table_counts_on(by: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("alpha")
    table = Table()
    first = table.open("open", "open", table.text(os.fsencode(tmp_path)), os.O_PATH, 0)
    second = table.open("open", "open", table.text(os.fsencode(tmp_path / "a")), os.O_RDONLY, 0)
    table.close(first)
    third = table.open("open", "open", table.text(b"/dev/null"), os.O_RDONLY, 0)
    assert (first, second, third) == (4, 6, 4)
    table.call("dup", "dup2", second, 0)
    execute(table, (b"/bin/cat",))
    assert run(table, by) == (0, b"alpha")


def beside_a_reaper() -> Table:
    """Return a table that forks a reaper, and goes on in the command that it forks beside it."""
    table = Table()
    reaper = table.fork("fork a reaper", CLONE_PARENT, REAPER)
    command = table.fork("fork", CLONE_PARENT, LEADER)
    table.call("exit", "exit_group", 0)
    table.begins(reaper)
    for descriptor in range(4):
        table.call("close", "close", descriptor)
    table.call("sleep", "pause")
    table.begins(command)
    return table


def test_a_command_may_be_forked_beside_a_reaper_and_is_a_child_of_ours(by: Interpreter) -> None:
    table = beside_a_reaper()
    execute(table, (b"/bin/sh", b"-c", b"exit 5"))
    pids = carry_out(table, by)
    assert pids.reaper is not None
    assert os.waitstatus_to_exitcode(os.waitpid(pids.leader, 0)[1]) == 5
    os.kill(pids.reaper, 9)
    assert os.waitstatus_to_exitcode(os.waitpid(pids.reaper, 0)[1]) == -9
    assert children() == []


def test_nothing_is_left_of_a_fork_whose_command_cannot_be_executed(by: Interpreter) -> None:
    table = beside_a_reaper()
    execute(table, (b"/nowhere",))
    with pytest.raises(ReportedError):
        carry_out(table, by)
    assert children() == []


def test_a_program_that_ends_before_all_is_done_has_failed(by: Interpreter) -> None:
    table = Table()
    table.call("exit", "exit_group", 0)
    with pytest.raises(ReportedError, match="starter"):
        carry_out(table, by)


def test_a_table_is_bounded() -> None:
    table = Table()
    with pytest.raises(TooLargeError):
        for _ in range(MOST_ROWS + 1):
            table.call("x", "pause")
    with pytest.raises(TooLargeError):
        Table().data(bytes(1 << 24))


ASSEMBLY = """
mov edi,0x10000000 | mov esi,0x1000000 | mov edx,0x3 | mov r10d,0x12 | mov r8d,0x4 | xor r9d,r9d | mov eax,0x9 | syscall
mov rbx,rax
mov rax,[rbx] | mov rdi,[rbx+0x8] | mov rsi,[rbx+0x10] | mov rdx,[rbx+0x18] | mov r10,[rbx+0x20] | mov r8,[rbx+0x28]
mov r9,[rbx+0x30] | syscall
mov rcx,[rbx+0x50] | mov [rcx],rax
mov rcx,[rbx+0x48] | test rax,rax | jg 0x400136
mov rcx,[rbx+0x40] | je 0x400136
mov rcx,[rbx+0x38] | test rcx,rcx | jne 0x400136
push rax | push rbx | mov edi,0x3 | mov rsi,rsp | mov edx,0x10 | mov eax,0x1 | syscall
mov edi,0x7f | mov eax,0xe7 | syscall
mov rbx,rcx | jmp 0x4000d8
"""


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_the_machine_code_is_the_one_that_is_described(tmp_path: Path) -> None:
    file = tmp_path / "code"
    file.write_bytes(starter.elf()[176:])
    argv = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--adjust-vma=0x4000b0", str(file)]
    listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = [line.split("\t")[2] for line in listing.splitlines() if line.count("\t") >= 2]
    words = [re.sub(r"\s+", " ", text.replace("QWORD PTR ", "")).strip() for text in found]
    assert words == [word.strip() for line in ASSEMBLY.strip().splitlines() for word in line.split("|")]
