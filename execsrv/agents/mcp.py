"""The tools as a server of the Model Context Protocol, by its official SDK: `execsrv mcp`. Needs `execsrv[mcp]`.

One server has one set of `Tools`, whose block is that of whoever runs it. A request that is cancelled cancels the call,
and so ends a command that was being started. Sessions are resources too: what they print, their screens, and their
recordings. The text that a model gets is that of the answers; there is no structured copy, which hosts would give to
the model instead.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import TypeVar

import mcp_types as types
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from execsrv._nursery import open_helpers
from execsrv._version import __version__
from execsrv.agents import functions
from execsrv.agents.answers import Listed
from execsrv.agents.approval import Approval
from execsrv.agents.tools import Tools
from execsrv.errors import ExecsrvError

T = TypeVar("T")

_INSTRUCTIONS = """\
Commands go on between calls. exec_command answers when its command has ended, or after yield_time_ms with a session ID;
write_stdin then waits for more, or types. A command that asks for input needs tty. End what is not needed any more with
kill_session."""

_PROGRESS_SECONDS = 1.0
"""The pause between two notes of progress, which keep hosts from giving a call up."""

_READ_ONLY = ("read_output", "read_screen", "list_sessions")

_SCHEME = "execsrv://session/"
_NUMBER = re.compile("[0-9]{1,18}")

_MAX_RECORDING_BYTES = 16 * 1024 * 1024
"""The largest recording that is read as a resource. Larger ones are files to be taken from where they are."""

_APPROVAL = "approval"
_APPROVE: types.ElicitRequestedSchema = {"type": "object", "properties": {}}
"""A form without a field: to accept it is to approve."""


def make_server(tools: Tools, approval: Approval) -> Server[dict[str, object]]:
    """Return a server that offers these tools as far as they are approved."""

    async def list_tools(
        context: ServerRequestContext, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=name,
                    description=functions.description(name),
                    input_schema=functions.schema(name),
                    annotations=types.ToolAnnotations(read_only_hint=name in _READ_ONLY),
                )
                for name in functions.FUNCTIONS
            ]
        )

    async def call_tool(
        context: ServerRequestContext, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        try:
            arguments = params.arguments or {}
            functions.checked(params.name, arguments)
            approval.check(params.name, arguments)
            if (question := approval.question(params.name, arguments)) is not None:
                answer = await _asked(context, params, question)
                if isinstance(answer, types.InputRequiredResult):
                    return answer
                approval.check_approved(answer.action == "accept")
            said = await _with_progress(context, functions.call(tools, params.name, arguments))
        except (ExecsrvError, OSError) as error:  # an OSError is that of a recording
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
        return types.CallToolResult(content=[types.TextContent(text=str(said))])

    async def list_resources(
        context: ServerRequestContext, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        found = [_resource(session, kind) for session in tools.list_sessions().sessions for kind in _kinds(session)]
        return types.ListResourcesResult(resources=found)

    async def read_resource(
        context: ServerRequestContext, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        try:
            text = await _read(tools, str(params.uri))
        except (ExecsrvError, OSError) as error:
            raise MCPError(code=types.INVALID_PARAMS, message=str(error), data={"uri": str(params.uri)}) from error
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=params.uri, text=text, mime_type=_mime_type(str(params.uri)))]
        )

    return Server(
        "execsrv",
        version=__version__,
        instructions=_INSTRUCTIONS,
        get_tool_input_schema=lambda name: functions.schema(name) if name in functions.FUNCTIONS else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
    )


async def _asked(
    context: ServerRequestContext, params: types.CallToolRequestParams, question: str
) -> types.ElicitResult | types.InputRequiredResult:
    """Ask the user through the client, in the way of its version of the protocol. Raises `ForbiddenError`."""
    form = types.ElicitRequestFormParams(message=question, requested_schema=_APPROVE)
    given = (params.input_responses or {}).get(_APPROVAL)
    if isinstance(given, types.ElicitResult):
        return given
    capabilities = context.session.client_capabilities
    if capabilities is None or capabilities.elicitation is None:
        raise Approval.refusal("the user is to be asked, which this client cannot do")
    if context.session.can_send_request:
        return await context.session.elicit_form(question, _APPROVE, context.request_id)
    return types.InputRequiredResult(input_requests={_APPROVAL: types.ElicitRequest(params=form)})


async def _with_progress(context: ServerRequestContext, call: Awaitable[T]) -> T:
    """Wait for a call, and say meanwhile that it goes on, to a client that wants to hear it."""

    async def report() -> None:
        began = trio.current_time()
        while True:
            await trio.sleep(_PROGRESS_SECONDS)
            seconds = trio.current_time() - began
            await context.session.report_progress(seconds, message=f"waiting for {seconds:.0f} s")

    async with open_helpers() as helpers:
        helpers.start_soon(report)
        return await call


# -- resources --


def _kinds(session: Listed) -> list[str]:
    screen = session.tty and session.state != "ended"
    return ["output", *(["screen"] if screen else []), *(["recording"] if session.recording else [])]


def _resource(session: Listed, kind: str) -> types.Resource:
    uri = f"{_SCHEME}{session.session_id}/{kind}"
    return types.Resource(
        uri=uri,
        name=f"{kind} of session {session.session_id}",
        description=f"{session.command[:200]} ({session.state})",
        mime_type=_mime_type(uri),
    )


def _mime_type(uri: str) -> str:
    return "application/x-asciicast" if uri.endswith("/recording") else "text/plain"


async def _read(tools: Tools, uri: str) -> str:
    """Return the content of a resource. Raises `ExecsrvError` and `OSError`."""
    number, _, kind = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not _NUMBER.fullmatch(number) or kind not in ("output", "screen", "recording"):
        raise ExecsrvError(f"there is no resource {uri[:200]!r}; those of a session are listed")
    if kind == "output":
        most = tools.settings.most_output_bytes
        return tools.read_output(int(number), -most, max_output_bytes=most).output
    if kind == "screen":
        return (await tools.read_screen(int(number))).screen
    path = tools.recording_of(int(number))
    if path is None:
        raise ExecsrvError(f"session ID {number} is not recorded")
    if (await trio.Path(path).stat()).st_size > _MAX_RECORDING_BYTES:
        raise ExecsrvError(f"the recording is too large to be read as a resource; it is in {path}")
    return await trio.Path(path).read_text(encoding="utf-8", errors="replace")
