"""Tables of system calls, and the two programs that carry them out: each does what the other does."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from execsrv._processes import proc
from execsrv._processes.confine import starter, syscalls
from execsrv._processes.confine import table as table_module
from execsrv._processes.confine.starter import LEADER, READY, REAPER, Interpreter, ReportedError, carry_out
from execsrv._processes.confine.syscalls import AARCH64
from execsrv._processes.confine.table import AT_FDCWD, MOST_ROWS, Table, TooLargeError

CLONE_PARENT = 0x8000


FILES = {"in memory": starter.in_memory, "on disk": starter.on_disk}


@pytest.fixture(params=[*FILES, "python"])
def by(request: pytest.FixtureRequest) -> Iterator[Interpreter]:
    if request.param == "python":
        yield starter.in_python()
        return
    found = starter.in_file(FILES[request.param]) if syscalls.is_known else None
    if found is None or found.file is None:
        pytest.skip("no such file can be executed here, or the machine is another")
    yield found
    os.close(found.file)


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


WITHOUT_MEMORY = """
mount -t tmpfs -o "$0" tmpfs "$TMPDIR" && echo 2 >/proc/sys/vm/memfd_noexec || exit 77
exec "$@"
"""
CHOOSING = """
import os
from execsrv._processes.confine import starter, syscalls
assert starter.in_file(starter.in_memory) is None
by = starter.interpreter()
print("python" if by.file is None else os.readlink(f"/proc/self/fd/{by.file}"))
"""


@pytest.mark.skipif(not syscalls.is_known, reason="the machine is another")
@pytest.mark.parametrize(("option", "expected"), [("exec", "/#"), ("noexec", "python")])
def test_where_no_file_in_memory_can_be_executed_another_program_is_there(
    option: str, expected: str, tmp_path: Path
) -> None:
    before = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", WITHOUT_MEMORY, option]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to make namespaces with")
    env = {**os.environ, "TMPDIR": f"{tmp_path}"}
    done = subprocess.run([*before, sys.executable, "-c", CHOOSING], env=env, capture_output=True, text=True)
    if done.returncode == 77 or done.stderr.startswith("unshare: "):
        pytest.skip(f"not allowed to refuse files in memory: {done.stderr}")
    assert expected in done.stdout, done.stderr
    if option == "exec":
        assert done.stdout.startswith(f"{tmp_path}/")


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
        table.call(f"make {name}", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / name)), 0o755)
    table.call("again", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / "one")), 0o755, optional=True)
    table.call("missing", "chdir", table.text(os.fsencode(tmp_path / "none")))
    table.call("make three", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / "three")), 0o755)
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
    first = table.open("open", "openat", AT_FDCWD, table.text(os.fsencode(tmp_path)), os.O_PATH, 0)
    second = table.open("open", "openat", AT_FDCWD, table.text(os.fsencode(tmp_path / "a")), os.O_RDONLY, 0)
    table.close(first)
    third = table.open("open", "openat", AT_FDCWD, table.text(b"/dev/null"), os.O_RDONLY, 0)
    assert (first, second, third) == (4, 6, 4)
    table.call("dup", "dup3", second, 0, 0)
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
    table.call("sleep", "ppoll", 0, 0, 0, 0)
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
            table.call("x", "ppoll")
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


def disassembled(code: bytes, objdump: str, *options: str) -> list[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(code)
        file.flush()
        argv = [objdump, "-D", "-b", "binary", *options, "--adjust-vma=0x4000b0", file.name]
        listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t", 2)[2] for line in listing.splitlines() if line.count("\t") >= 2]
    return [re.sub(r"\s+", " ", row.partition("//")[0].replace("QWORD PTR ", "")).strip() for row in rows]


def words(assembly: str) -> list[str]:
    return [word.strip() for line in assembly.strip().splitlines() for word in line.split("|")]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_the_machine_code_is_the_one_that_is_described() -> None:
    found = disassembled(starter.elf("x86_64")[176:], "objdump", "-m", "i386:x86-64", "-M", "intel")
    assert found == words(ASSEMBLY)


AARCH64_ASSEMBLY = """
mov x0, #0x10000000 | mov x1, #0x1000000 | mov x2, #0x3 | mov x3, #0x12 | mov x4, #0x4 | mov x5, #0x0 | mov x8, #0xde
svc #0x0 | mov x19, x0
ldp x8, x0, [x19] | ldp x1, x2, [x19, #16] | ldp x3, x4, [x19, #32] | ldr x5, [x19, #48] | svc #0x0
ldr x9, [x19, #80] | str x0, [x9]
ldr x9, [x19, #72] | cmp x0, #0x0 | b.gt 0x400130
ldr x9, [x19, #64] | b.eq 0x400130
ldr x9, [x19, #56] | cbnz x9, 0x400130
stp x19, x0, [sp, #-16]! | mov x0, #0x3 | mov x1, sp | mov x2, #0x10 | mov x8, #0x40 | svc #0x0
mov x0, #0x7f | mov x8, #0x5e | svc #0x0
mov x19, x9 | b 0x4000d4
"""


def encoded(text: str, address: int) -> int:
    """Encode one of the instructions that the code has, by the Arm Architecture Reference Manual, C6.2."""
    name, _, rest = text.partition(" ")
    registers = [31 if found == "sp" else int(found[1:]) for found in re.findall(r"\b(?:x\d+|sp)\b", rest)]
    numbers = [int(found, 0) for found in re.findall(r"(?:#|\b)(-?(?:0x[0-9a-f]+|\d+))\b", rest)]
    d, n, *more = [*registers, 0, 0]
    offset = (numbers[-1] - address) // 4 if numbers else 0
    match name:
        case "svc":
            return 0xD4000001
        case "mov" if rest.endswith("sp"):
            return 0x91000000 | n << 5 | d  # add, with 0
        case "mov" if len(registers) == 2:
            return 0xAA0003E0 | n << 16 | d  # orr, with the zero register
        case "mov":
            high = numbers[0] > 0xFFFF
            return 0xD2800000 | high << 21 | (numbers[0] >> 16 * high) << 5 | d  # movz
        case "cmp":
            return 0xF100001F | d << 5
        case "ldp" | "stp":
            kind = 0xA9400000 if name == "ldp" else 0xA9800000  # which writes the address back
            return kind | ((numbers or [0])[0] // 8 & 0x7F) << 15 | n << 10 | more[0] << 5 | d
        case "ldr" | "str":
            return (0xF9400000 if name == "ldr" else 0xF9000000) | (numbers or [0])[0] // 8 << 10 | n << 5 | d
        case "b.gt" | "b.eq":
            return 0x54000000 | (offset & 0x7FFFF) << 5 | (12 if name == "b.gt" else 0)
        case "cbnz":
            return 0xB5000000 | (offset & 0x7FFFF) << 5 | d
        case "b":
            return 0x14000000 | offset & 0x3FFFFFF
    raise AssertionError(text)


def test_the_machine_code_for_aarch64_is_the_one_that_is_described() -> None:
    code = starter.elf("aarch64")[176:]
    by_hand = [encoded(text, 0x4000B0 + 4 * place) for place, text in enumerate(words(AARCH64_ASSEMBLY))]
    assert [f"{word:08x}" for (word,) in struct.iter_unpack("<I", code)] == [f"{word:08x}" for word in by_hand]
    if (objdump := shutil.which("aarch64-linux-gnu-objdump")) is not None:
        assert disassembled(code, objdump, "-m", "aarch64") == words(AARCH64_ASSEMBLY)


QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.mark.skipif(QEMU is None, reason="needs an emulator of aarch64 (Debian: qemu-user-static)")
def test_the_machine_code_for_aarch64_carries_out_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an emulator, with the numbers of that machine: rows in order, a fork, a child's branch, and a failing row."""
    assert QEMU is not None
    monkeypatch.setattr(table_module, "NUMBERS", AARCH64)
    (tmp_path / "program").write_bytes(starter.elf("aarch64"))
    (tmp_path / "program").chmod(0o755)
    table = Table()
    table.call("make one", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / "one")), 0o755)
    table.call("again", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / "one")), 0o755, optional=True)
    child = table.fork("fork", 17, LEADER)
    file = table.open("open", "openat", AT_FDCWD, table.text(os.fsencode(tmp_path / "parent")), os.O_CREAT, 0o644)
    table.close(file)
    table.call("missing", "chdir", table.text(os.fsencode(tmp_path / "none")))
    table.call("make never", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / "never")), 0o755)
    table.begins(child)
    table.call("make two", "mkdirat", AT_FDCWD, table.text(os.fsencode(tmp_path / "two")), 0o755)
    table.call("exit", "exit_group", 0)
    by = Interpreter(os.fsencode(QEMU), (os.fsencode(QEMU), os.fsencode(tmp_path / "program")))
    with pytest.raises(ReportedError) as caught:
        carry_out(table, by)
    assert (caught.value.step, caught.value.errno) == ("missing", 2)
    assert {"one", "parent", "program"} <= set(os.listdir(tmp_path)) <= {"one", "two", "parent", "program"}


HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), syscalls.X86_64),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), syscalls.AARCH64),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_of_system_calls_are_those_of_the_kernel(machine: str) -> None:
    header, numbers = HEADERS[machine]
    if not header.exists():
        pytest.skip("needs the headers of the kernel")
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    known = {name: number for name, number in numbers.items() if name in defined}  # others are younger than these
    assert known == {name: int(defined[name]) for name in known}
    assert len(known) > 0.9 * len(numbers)


def test_a_start_makes_only_calls_that_every_machine_has() -> None:
    source = "".join(path.read_text() for path in Path(starter.__file__).parent.glob("*.py"))
    made = set(re.findall(r'\.(?:call|open)\(\s*(?:f?"[^"]*"|name), "(\w+)"', source))
    assert {"openat", "mount", "execve", "prctl"} <= made
    for numbers in syscalls.BY_MACHINE.values():
        assert made <= numbers.keys()
