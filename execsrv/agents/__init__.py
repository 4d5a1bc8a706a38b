"""Tools for agents: commands that go on between calls, with answers that a model can be given.

    async with execsrv.connect_in_process() as client, execsrv.agents.open_tools(client) as tools:
        answer = await tools.exec_command("make test", yield_time_ms=10_000)
        print(answer)

`exec_command` and `write_stdin` are those of Codex, with its window of time. `definitions` describes them to a model,
`call` does what a model asks for, and `execsrv mcp` offers them to other programs.
"""

from execsrv.agents.answers import Answer, Facts, Listed, Picture, Piece, Sessions
from execsrv.agents.bookkeeping import UnknownSessionError
from execsrv.agents.events import AgentEvent, Began, Ended, Output, Typed
from execsrv.agents.functions import call, definitions
from execsrv.agents.settings import ToolSettings
from execsrv.agents.tools import Tools, open_tools

__all__ = [
    "AgentEvent",
    "Answer",
    "Began",
    "Ended",
    "Facts",
    "Listed",
    "Output",
    "Picture",
    "Piece",
    "Sessions",
    "ToolSettings",
    "Tools",
    "Typed",
    "UnknownSessionError",
    "call",
    "definitions",
    "open_tools",
]
