"""The behaviour suite over a runner: a channel on which every `process/start` is, whatever its test knows of runners.

Each test starts a runner of its own, which takes a while: only some run each time, and all of them with `--slow`.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from execsrv._wire.channel import MessageChannel
from execsrv.protocol import Message, ProcessStart, Request

LAUNCH = [sys.executable, "-m", "execsrv", "runner"]

RELAY = """
import os, subprocess, sys, threading
far = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
def relay(source, sink):
    buffer = memoryview(bytearray(1 << 20))
    while size := os.readv(source, [buffer]):
        sent = 0
        while sent < size:
            sent += os.write(sink, buffer[sent:size])
    os.close(sink)
threading.Thread(target=relay, args=(0, far.stdin.fileno()), daemon=True).start()
relay(far.stdout.fileno(), 1)
os._exit(far.wait())
"""
RELAYED = [sys.executable, "-I", "-S", "-c", RELAY, *LAUNCH]
"""Nothing but bytes comes through, as with ssh and docker."""


WAYS = {"runner": LAUNCH, "relayed": RELAYED}
"""As transports: pipes of the server's are passed to the one runner, the other has everything framed."""

_SUITE = {
    f"tests.test_{name}"
    for name in "process_dialect sessions flow endings streams waiting expect wait_for record many codex_pains".split()
}
_EACH_TIME = {
    "runner": {
        "test_writes_arrive_once_in_order_and_end",
        "test_a_program_that_closes_its_stdin",
        "test_a_background_child_goes_on_streaming",
        "test_size_from_the_first_instant_and_later",
        "test_targets_and_their_counts",
        "test_job_control_in_an_interactive_shell",
        "test_the_shortest_grace_counts",
        "test_what_lives_on_is_told_at_the_close",
        "test_a_window_holds_one_process_and_no_other",
        "test_one_stream_has_both_in_the_order_of_writing",
    },
    "relayed": {
        "test_binary_output_is_untouched",
        "test_termination_does_not_wait_for_a_reader",
        "test_a_window_holds_one_process_and_no_other",
        "test_background_survivors_outlive_their_leader_but_not_their_connection",
    },
}
_NOT_OVER_A_RUNNER = {
    "test_output_goes_to_files": "a runner opens no files",
    "test_a_file_that_cannot_be_written_is_an_error_that_names_it": "a runner opens no files",
    "test_what_is_not_piped_has_no_reader": "a runner opens no files",
    "test_a_path_that_is_no_text_is_a_clear_error": "requests of a runner are JSON, and so text",
    "test_a_timeout_ends_what_the_leader_left": "a timeout holds for the start of the runner too",
    "test_a_timeout_ends_it_with_all_its_output": "a timeout holds for the start of the runner too",
    "test_gates": "who may start nothing directly launches no runner",
    "test_a_leader_that_ended_by_itself_was_not_terminated": "an end is known when the runner's word of it has come",
    "test_what_was_asked_before_the_end_is_still_answered": "the start of the runner takes longer than the grace",
    "test_a_group_that_empties_by_itself_is_let_go": "the runner itself is a child of the server",
}

_NOT_RELAYED = {
    "test_a_child_that_does_not_read_delays_nobody": "framed input is accepted when the runner has it",
    "test_a_program_that_closes_its_stdin": "framed input is accepted when the runner has it",
}


def is_wanted(module: str, test: str, transport: object, *, slow: bool) -> bool:
    """Whether a test is to run on this transport."""
    if transport not in WAYS:
        return True
    if transport == "relayed" and test in _NOT_RELAYED:
        return False
    return module in _SUITE and test not in _NOT_OVER_A_RUNNER and (slow or test in _EACH_TIME[str(transport)])


class OverRunner:
    """The channel of a client in this program."""

    def __init__(self, channel: MessageChannel, launch: list[str]) -> None:
        self._channel = channel
        self._launch = launch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def send(self, message: Message) -> None:
        await self._channel.send(_over(self._launch, message))

    def send_now(self, message: Message) -> bool:
        sent: bool = self._channel.send_now(_over(self._launch, message))
        return sent


def _over(launch: list[str], message: Message) -> Message:
    if not isinstance(message, Request) or message.method != "process/start":
        return message
    params: Any = message.params
    if isinstance(params, ProcessStart):
        params = msgspec.structs.replace(params, runner=launch)
    elif isinstance(params, dict):
        params = {**params, "runner": launch}
    return Request(message.id, message.method, params)
