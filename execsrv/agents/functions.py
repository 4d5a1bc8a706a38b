"""The tools as functions that a model calls: what they are called, what they take, and the JSON Schema of it.

Each is described by one struct, from which the schema is made, by which arguments are checked, and whose text the
model reads. The names of the first two, and of what they take, are those that models know from Codex.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from execsrv.agents.answers import Answer, Picture, Piece, Sessions
from execsrv.agents.tools import Tools
from execsrv.errors import InvalidParamsError

Style = Literal["openai", "openai-chat", "anthropic", "gemini", "mcp"]
"""The forms in which providers want functions: OpenAI's Responses and Chat Completions, Anthropic's and Google's APIs,
and the Model Context Protocol."""

_SessionId = Annotated[int, Meta(description="The session ID that exec_command gave.")]
_YieldTime = Annotated[
    int,
    Meta(ge=0, description="Milliseconds to wait before the answer, which comes sooner when all has ended."),
]
_MaxTokens = Annotated[
    int, Meta(ge=0, description="Most tokens of output to answer with. The middle of more is left out.")
]


class Function(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Arguments of one function."""


class ExecCommand(Function, frozen=True):
    """Run a command. Returns its output and how it ended, or, when it still runs after yield_time_ms, a session ID for
    write_stdin: it goes on meanwhile."""

    cmd: Annotated[
        str | list[str], Meta(description="A line for the shell, or a list of words that are run without a shell.")
    ]
    workdir: Annotated[str, Meta(description="The directory to run it in, on the server.")] | UnsetType = UNSET
    env: Annotated[dict[str, str], Meta(description="Variables to set for it.")] | UnsetType = UNSET
    tty: Annotated[
        bool, Meta(description="Give it a terminal, so that it can be written to. Without one its stdin is empty.")
    ] = False
    shell: Annotated[str, Meta(description="The shell. Default: that of the server's user.")] | UnsetType = UNSET
    login: Annotated[bool, Meta(description="Run it in a login shell.")] = False
    yield_time_ms: _YieldTime | UnsetType = UNSET
    max_output_tokens: _MaxTokens | UnsetType = UNSET
    timeout_ms: Annotated[int, Meta(ge=1, le=2**53, description="End it after so many milliseconds.")] | UnsetType = (
        UNSET
    )

    async def do(self, tools: Tools) -> Answer:
        return await tools.exec_command(
            self.cmd,
            cwd=_given(self.workdir),
            env=_given(self.env),
            tty=self.tty,
            shell=_given(self.shell),
            login=self.login,
            yield_time_ms=_given(self.yield_time_ms),
            max_output_tokens=_given(self.max_output_tokens),
            timeout=None if isinstance(self.timeout_ms, UnsetType) else self.timeout_ms / 1000,
        )


class WriteStdin(Function, frozen=True):
    """Write to a running session, or only look, and return what it has printed since the last answer."""

    session_id: _SessionId
    chars: Annotated[
        str, Meta(description="What to type; end a line with \\n. \\u0003 is Ctrl-C. Empty: only wait for output.")
    ] = ""
    until: Annotated[str, Meta(description="Answer as soon as this text is in the new output.")] = ""
    yield_time_ms: _YieldTime | UnsetType = UNSET
    max_output_tokens: _MaxTokens | UnsetType = UNSET

    async def do(self, tools: Tools) -> Answer:
        return await tools.write_stdin(
            self.session_id,
            self.chars,
            until=self.until,
            yield_time_ms=_given(self.yield_time_ms),
            max_output_tokens=_given(self.max_output_tokens),
        )


class ReadOutput(Function, frozen=True):
    """Return output of a session again, from a byte on: what an answer left out, or what came long ago."""

    session_id: _SessionId
    offset: Annotated[int, Meta(description="The first byte. Negative: so many bytes before the end.")] = 0
    max_output_tokens: _MaxTokens | UnsetType = UNSET

    async def do(self, tools: Tools) -> Piece:
        return tools.read_output(self.session_id, self.offset, max_output_tokens=_given(self.max_output_tokens))


class ReadScreen(Function, frozen=True):
    """Return what a person would see on the terminal of a session now: for full-screen programs."""

    session_id: _SessionId

    async def do(self, tools: Tools) -> Picture:
        return await tools.read_screen(self.session_id)


class ListSessions(Function, frozen=True):
    """List the commands that were started, with their session IDs: those that run, and those that ended lately."""

    async def do(self, tools: Tools) -> Sessions:
        return tools.list_sessions()


class KillSession(Function, frozen=True):
    """End a session and everything that it has started, and return its last output."""

    session_id: _SessionId

    async def do(self, tools: Tools) -> Answer:
        return await tools.kill_session(self.session_id)


FUNCTIONS: dict[str, type[ExecCommand | WriteStdin | ReadOutput | ReadScreen | ListSessions | KillSession]] = {
    "exec_command": ExecCommand,
    "write_stdin": WriteStdin,
    "read_output": ReadOutput,
    "read_screen": ReadScreen,
    "list_sessions": ListSessions,
    "kill_session": KillSession,
}
"""The functions by their names."""


def _given(value: Any) -> Any:
    """Return an argument, None where it was left out."""
    return None if value is UNSET else value


def description(name: str) -> str:
    """Return the text by which a model knows a function."""
    return " ".join((FUNCTIONS[name].__doc__ or "").split())


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a function's arguments, in itself: it refers to nothing."""
    _, components = msgspec.json.schema_components([FUNCTIONS[name]])
    (found,) = components.values()
    parts = ("type", "properties", "required", "additionalProperties")
    return {part: found[part] for part in parts if part in found}


def definitions(style: Style = "openai") -> list[dict[str, Any]]:
    """Return the functions as a provider wants them described."""
    return [_definition(name, style) for name in FUNCTIONS]


def _definition(name: str, style: Style) -> dict[str, Any]:
    said = {"name": name, "description": description(name)}
    match style:
        case "openai":
            return {"type": "function", **said, "parameters": schema(name), "strict": False}
        case "openai-chat":
            return {"type": "function", "function": {**said, "parameters": schema(name)}}
        case "anthropic":
            return {**said, "input_schema": schema(name)}
        case "mcp":
            return {**said, "inputSchema": schema(name)}
        case "gemini":
            return {**said, "parameters": _without(schema(name), {"additionalProperties", "default"})}
    raise InvalidParamsError(f"style: there is no {style!r}", field="style")


def _without(schema: Any, words: set[str]) -> Any:
    """Return a schema without words that its reader does not know. Names of properties are no words."""
    if isinstance(schema, list):
        return [_without(part, words) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        word: {name: _without(part, words) for name, part in value.items()}
        if word == "properties"
        else _without(value, words)
        for word, value in schema.items()
        if word not in words
    }


def checked(name: str, arguments: Any) -> Any:
    """Return what a model asks for as its struct. Raises `InvalidParamsError`."""
    if (function := FUNCTIONS.get(name)) is None:
        raise InvalidParamsError(f"there is no function {name!r}; there are {', '.join(FUNCTIONS)}", field="name")
    try:
        if isinstance(arguments, str | bytes):
            return msgspec.json.decode(arguments or b"{}", type=function)
        return msgspec.convert(arguments, function)
    except msgspec.ValidationError as error:
        raise InvalidParamsError(f"{name}: {error}; {_wanted(name)}") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidParamsError(f"{name}: {error}; the arguments must be one JSON object") from None


def _wanted(name: str) -> str:
    """Return the arguments of a function, for an error that a model reads."""
    said = schema(name)
    if not said["properties"]:
        return "it takes no arguments"
    required = said.get("required", ())
    names = (f"{each} (required)" if each in required else each for each in said["properties"])
    return f"its arguments are {', '.join(names)}"


async def call(tools: Tools, name: str, arguments: Any) -> Answer | Piece | Picture | Sessions:
    """Do what a model asks for: `arguments` are an object, or JSON of one. `str` of the result is text for the model.

    Raises `InvalidParamsError` for a function or arguments that there are not, and as the function does: the text of
    every `ExecsrvError` may be given to the model. Cancelling is that of the function.
    """
    answer: Answer | Piece | Picture | Sessions = await checked(name, arguments).do(tools)
    return answer
