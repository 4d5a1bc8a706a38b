"""Attacks of a command on what is around it: `confine_attacks FACTS`, standard library only.

Each is tried in a child of its own. What became of all is printed as a line of JSON: "open" for what succeeded, else
the name of the error, or the signal that the child died of. FACTS, in JSON, are what there is to attack; none of it is
harmed for good.
"""

# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any

ONCE = os.urandom(4).hex()
"""Part of the names that one run makes."""

LIBC = ctypes.CDLL(None, use_errno=True)
FACTS: dict[str, Any] = {}
ATTACKS: dict[str, Callable[[], object]] = {}

Attack = Callable[[], object]


def attack(run: Attack) -> Attack:
    ATTACKS[run.__name__] = run
    return run


def call(number: int, *arguments: object) -> int:
    """Make a system call of x86-64."""
    result = int(LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def out(name: str = "") -> str:
    return os.path.join(FACTS["outside"], name)


def inside(name: str) -> str:
    return os.path.join(FACTS["workspace"], name)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


# -- writing --

for _name, _run in {
    "write_file": lambda: write(out("file")),
    "create_file": lambda: write(out("new")),
    "truncate_file": lambda: os.truncate(out("file"), 4),
    "make_folder": lambda: os.mkdir(out("made")),
    "unlink_file": lambda: os.unlink(out("doomed")),
    "rename_outside": lambda: os.rename(out("named"), out("renamed")),
    "rename_into": lambda: os.rename(out("taken"), inside("taken")),
    "rename_out": lambda: (write(inside("given" + ONCE)), os.rename(inside("given" + ONCE), out("given"))),
    "link_out": lambda: os.link(out("file"), inside("hard" + ONCE)),
    "link_and_write": lambda: (os.link(out("file"), inside("hard2" + ONCE)), write(inside("hard2" + ONCE))),
    "symlink_outside": lambda: os.symlink("x", out("sym")),
    "write_through_symlink": lambda: (os.symlink(out("file"), inside("sym" + ONCE)), write(inside("sym" + ONCE))),
    "bind_socket_outside": lambda: socket.socket(socket.AF_UNIX).bind(out("sock")),
    "make_fifo": lambda: os.mkfifo(out("fifo2")),
    "write_root_link": lambda: write("/proc/self/root" + out("file")),
    "write_cwd_link": lambda: write("/proc/self/cwd/../outside/file"),
    "write_git": lambda: write(inside(".git/config")),
    "create_in_git": lambda: write(inside(".git/hook")),
    "rename_git": lambda: (os.rename(inside(".git"), inside("git2")), os.rename(inside("git2"), inside(".git"))),
    "rename_above_protected": lambda: (os.rename(inside("a"), inside("a2")), os.rename(inside("a2"), inside("a"))),
    "write_protected_below": lambda: write(inside("a/b/part")),
    "chmod_git": lambda: os.chmod(inside(".git/config"), 0o600),
    # -- what belongs to files --
    "chmod": lambda: os.chmod(out("file"), 0o644),
    "fchmod": lambda: os.fchmod(os.open(out("file"), os.O_RDONLY), 0o644),
    "chown": lambda: os.chown(out("file"), os.getuid(), os.getgid()),
    "utime": lambda: os.utime(out("file")),
    "touch_null": lambda: os.utime("/dev/null"),
    "touch_its_null": lambda: os.utime(0 if not os.isatty(0) else "/dev/null"),
    "setxattr": lambda: os.setxattr(out("file"), "user.x", b"1"),
    # -- secrets --
    "read_secret": lambda: read(FACTS["secret"]),
    "read_secret_file": lambda: read(FACTS["secret_file"]),
    "open_secret_file": lambda: (os.chmod(FACTS["secret_file"], 0o600), read(FACTS["secret_file"])),
    "list_secret": lambda: os.listdir(os.path.dirname(FACTS["secret"])),
    "read_secret_by_root": lambda: read("/proc/self/root" + FACTS["secret"]),
    "read_secret_by_server": lambda: read(f"/proc/{FACTS['server']}/root" + FACTS["secret"]),
    "read_server_environment": lambda: read(f"/proc/{FACTS['server']}/environ"),
    "read_server_maps": lambda: read(f"/proc/{FACTS['server']}/maps"),
    "read_server_descriptors": lambda: os.listdir(f"/proc/{FACTS['server']}/fd"),
    "open_server_memory": lambda: os.open(f"/proc/{FACTS['server']}/mem", os.O_RDONLY),
    "read_neighbour_environment": lambda: read(f"/proc/{FACTS['neighbour']}/environ"),
    "read_neighbour_memory": lambda: os.open(f"/proc/{FACTS['neighbour']}/mem", os.O_RDWR),
    # -- the network, and other programs --
    "tcp": lambda: socket.create_connection(("127.0.0.1", FACTS["tcp"]), 5),
    "tcp_listen": lambda: socket.create_server(("127.0.0.1", 0)),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", FACTS["tcp"])),
    "ipv6": lambda: socket.socket(socket.AF_INET6),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "unix_stream": lambda: socket.socket(socket.AF_UNIX).connect(out("stream")),
    "unix_datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", out("datagram")),
    "unix_message": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, out("datagram")),
    "unix_raw": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_RAW).sendmsg([b"x"], [], 0, out("datagram")),
    "unix_pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendmsg(
        [b"x"], [], 0, out("datagram")
    ),
    "unix_abstract": lambda: socket.socket(socket.AF_UNIX).connect("\0" + FACTS["abstract"]),
    "fifo": lambda: os.write(os.open(out("fifo"), os.O_WRONLY | os.O_NONBLOCK), b"x"),
    # -- processes --
    "kill_server": lambda: os.kill(FACTS["server"], 0),
    "kill_neighbour": lambda: os.kill(FACTS["neighbour"], signal.SIGCONT),
    "kill_group": lambda: os.killpg(FACTS["neighbour"], signal.SIGCONT),
    "kill_thread": lambda: call(234, FACTS["server"], FACTS["server"], 0),  # tgkill
    "kill_by_pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(FACTS["server"]), 0),
    "limits_of_server": lambda: resource.prlimit(FACTS["server"], resource.RLIMIT_CORE, (0, -1)),
    "priority_of_server": lambda: os.setpriority(os.PRIO_PROCESS, FACTS["server"], 0),
    "priority_of_neighbour": lambda: os.setpriority(os.PRIO_PROCESS, FACTS["neighbour"], 0),
    "processors_of_server": lambda: os.sched_setaffinity(FACTS["server"], os.sched_getaffinity(0)),
    "ptrace_neighbour": lambda: (
        call(101, 16, FACTS["neighbour"], 0, 0),
        os.waitpid(FACTS["neighbour"], 0x40000000),
        call(101, 17, FACTS["neighbour"], 0, 0),
    ),
    "ptrace_child": lambda: call(101, 0, 0, 0, 0),
    "lease": lambda: fcntl.fcntl(os.open(out("file"), os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK),
    "descriptor_of_server": lambda: call(438, os.pidfd_open(FACTS["neighbour"]), 0, 0),  # pidfd_getfd
    # -- more rights --
    "shed_mark": lambda: resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, -1)),
    "shed_mark_by_lock": lambda: resource.setrlimit(10, (1 << 40, -1)),
    "shed_mark_of_child": lambda: resource.prlimit(_child(), resource.RLIMIT_RTTIME, (1 << 40, -1)),
    "user_namespace": lambda: call(272, 0x10000000),
    "user_namespace_by_clone": lambda: _reap(call(56, 0x10000000 | 17, 0, 0, 0, 0)),
    "user_namespace_by_clone3": lambda: _clone3(0x10000000),
    "child_of_its_parent": lambda: call(56, 0x8000 | 17, 0, 0, 0, 0) or os._exit(0),
    "new_root": lambda: (call(272, 0x10000000), os.chroot(out())),
    "mount_api": lambda: (_in_namespace(), call(430, b"tmpfs", 0)),
    "io_uring": lambda: call(425, 4, ctypes.create_string_buffer(256)),
    "keyring": lambda: call(248, b"user", b"execsrv-x", b"1", 1, -2),
    "perf": lambda: call(298, struct.pack("<II", 1, 112) + bytes(104), 0, -1, -1, 0),
    "handle_at": lambda: _handle(),
    "shared_memory": lambda: call(29, 0x6578, 64, 0o666),  # shmget of what is there outside
    "posix_shared_memory": lambda: read("/dev/shm/" + FACTS["shm"]),
    "terminal_of_others": lambda: os.stat(FACTS["terminal"]),
    "core_pattern": lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "sysrq": lambda: os.open("/proc/sysrq-trigger", os.O_WRONLY),
    "proc_sys": lambda: os.open("/proc/sys/kernel/hostname", os.O_WRONLY),
    "raw_disk": lambda: os.open(FACTS["disk"], os.O_RDONLY),
    "make_device": lambda: os.mknod(inside("device"), 0o600 | 0o060000, os.makedev(7, 0)),
    "open_mount": lambda: call(428, -100, out().encode(), 1),
    "mount": lambda: _mount(),
    "remount": lambda: _mount(32),
    "hostname": lambda: socket.sethostname(socket.gethostname()),
    "set_id": lambda: os.setresuid(65533, 65533, 65533),
    "x32": lambda: call(0x40000000 + 39),
    "i386": lambda: _i386(),
    "type_into_terminal": lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"),
}.items():
    ATTACKS[_name] = _run

OF_ROOT = {
    *"core_pattern sysrq proc_sys raw_disk make_device open_mount mount remount".split(),
    *"hostname set_id".split(),
}
"""Those that take a right which only root has. Users without it are not asked."""


def _fail(number: int) -> None:
    raise OSError(number, "")


def _child() -> int:
    """Return a child that ends with us."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(target)
        os.read(source, 1)
        os._exit(0)
    return pid


def _reap(pid: int) -> None:
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _clone3(flags: int) -> None:
    _reap(call(435, struct.pack("<5Q", flags, 0, 0, 0, 17) + bytes(24), 64))


def _in_namespace() -> None:
    if os.getuid():
        call(272, 0x10000000 | 0x20000)


def _mount(flags: int = 0) -> None:
    """Mount something, perhaps change it, and take it away again."""
    place = inside("a").encode()
    call(165, b"x", place, b"tmpfs", 0, 0)
    if flags:
        call(165, 0, place, 0, flags | 4096, 0)
    call(166, place, 2)


def _handle() -> None:
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0) + bytes(128))
    call(303, -100, out("file").encode(), handle, ctypes.byref(ctypes.c_int()), 0)


def _i386() -> None:
    """Ask for the pid by the entry of 32 bits: mov eax, 20; int 0x80; ret."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    ask = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if (pid := ask()) < 0:
        _fail(-pid)


def outcome(run: Attack) -> str:
    """Run one in a child and tell what became of it."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            run()
            said = "open"
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, str(error))
        except ValueError:  # of resource: EPERM
            said = "EPERM"
        except BaseException as error:
            said = repr(error)
        os.write(target, said.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(target)
    with open(source, "rb") as answer:
        text = answer.read().decode()
    status = os.waitpid(pid, 0)[1]
    return text or f"signal {os.WTERMSIG(status)}"


def main() -> None:
    FACTS.update(json.loads(sys.argv[1]))
    os.chdir(FACTS["workspace"])
    found = {name: outcome(run) for name, run in ATTACKS.items() if name not in FACTS["without"]}
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
