"""Writes `execsrv.sync` and `execsrv.asyncio` from the client's own classes: `python -m tests.facades`.

Their definition is that of the trio client, signature by signature and sentence by sentence. What waits there is
called through the portal; what is entered there is entered here; what is iterated over is iterated over; all else is
passed on.
A class gets a facade when something public gives it and something in it waits.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import execsrv
from execsrv.client.streams import Input, Output

ROOT = Path(execsrv.__file__).parent
WORLDS = {"sync": "blocking", "asyncio": "awaiting"}

FUNCTIONS = ["connect", "connect_unix", "connect_websocket", "launch"]
HEAD = "# Written by tests/facades.py from {}: change that, and run `python -m tests.facades`.\n"
HELPERS = {"execsrv.client.replwrap": ["bash", "python", "wrap"]}
"""Functions that are given an object of the client first."""
MADE = [execsrv.Pool]
"""Classes whose objects users make themselves."""
AGENTS = {"execsrv.agents.tools": ["open_tools"], "execsrv.agents.functions": ["call"]}
"""Such functions of `execsrv.agents`, which has a module of its own that nobody else imports."""
NOT_HERE = {
    "connect_in_process": "a server in a thread cannot keep what is promised of commands that take to flight",
    "connect_stdio": "it takes streams of trio",
    "serve": "the server is a program of trio",
    "open_server": "the server is a program of trio",
    "serve_channel": "the server is a program of trio",
    "processes": "the founding library's surface is for trio",
}
"""Public names of execsrv that do something and have no counterpart."""

STREAMS = {
    "sync": {"Input": "Input", "Output": "BufferedReader"},
    "asyncio": {"Input": "Input", "Output": "Output"},
}
STREAM_WORDS = {
    ("sync", "stdin"): "Its input, a file to write to.",
    ("sync", "stdout"): "Its output, or all that its terminal shows, as a file of bytes, which reads ahead.",
    ("sync", "stderr"): "Its errors, as a file of bytes. Nothing comes where they have no pipe of their own.",
    ("asyncio", "stdin"): "Its input.",
    ("asyncio", "stdout"): "Its output, or all that its terminal shows, as a stream that reads ahead.",
    ("asyncio", "stderr"): "Its errors. Nothing comes where they have no pipe of their own.",
}
PROMISES = ["Cancelling loses nothing", "Cancelling ends the command", "Cancelling is that of the function"]
"""Words of those whose work is undone where their caller was cancelled on the way back."""
DUNDERS = ["__str__", "__fspath__", "__eq__", "__hash__", "__lt__", "__truediv__", "__len__", "__contains__"]
BLOCKS = ("AbstractAsyncContextManager", "AsyncContextManager")

RUN_WORDS = """Run a command on a server that is started for it, and return its result, as `Client.run` does.

    To start the server takes longer than a short command does: for more than one, open a client.
    """


# -- what there is --


@cache
def tree(module: str) -> ast.Module:
    """Return a module of the package as it is written."""
    file = importlib.import_module(module).__file__
    assert file is not None
    return ast.parse(Path(file).read_text())


@cache
def origins(module: str) -> dict[str, str]:
    """Return where the names of a module come from: the module that has to be imported for each."""
    found: dict[str, str] = {}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: "" for alias in node.names}
    for node in tree(module).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] = module
            case ast.Assign(targets=targets):
                names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
                found |= {name.id: module for name in names}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = module
    return found


def class_of(name: str, module: str) -> type | None:
    """Return the class of the package that a name means in a module."""
    origin = origins(module).get(name)
    if origin is None or not origin.startswith("execsrv"):
        return None
    found = getattr(importlib.import_module(origin), name, None)
    return found if isinstance(found, type) else None


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Member:
    """One public thing in a class, with the module whose names it uses; a function may have overloads before it."""

    node: Function | ast.AnnAssign
    module: str
    words: str | None = None
    overloads: list[Function] = field(default_factory=list)
    other_name: str | None = None
    """The name in the class that it is another one for."""

    @property
    def decorators(self) -> set[str]:
        assert not isinstance(self.node, ast.AnnAssign)
        return {ast.unparse(each) for each in self.node.decorator_list}

    @property
    def kind(self) -> str:
        """How it is to be called: property, attribute, enter, iterate, wait or plain."""
        if isinstance(self.node, ast.AnnAssign):
            return "attribute"
        returns = ast.unparse(self.node.returns) if self.node.returns else ""
        if self.decorators & {"property", "cached_property"}:
            return "iterating property" if returns.startswith("AsyncIterator[") else "property"
        if "asynccontextmanager" in self.decorators or returns.startswith(BLOCKS):
            return "enter"
        if returns.startswith("AsyncIterator["):
            return "iterate"
        return "wait" if isinstance(self.node, ast.AsyncFunctionDef) else "plain"


def members(cls: type) -> dict[str, Member]:
    """Return what is public in a class, with what it inherits."""
    found: dict[str, Member] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("execsrv."):
            continue
        body = next(
            n for n in tree(base.__module__).body if isinstance(n, ast.ClassDef) and n.name == base.__name__
        ).body
        own: dict[str, Member] = {}
        overloads: list[Function] = []
        made = next((node.body for node in body if isinstance(node, Function) and node.name == "__init__"), [])
        for node, following in (*pairwise([*body, None]), *pairwise([*made, None])):
            if isinstance(node, ast.AnnAssign):
                name = node.target.attr if isinstance(node.target, ast.Attribute) else ast.unparse(node.target)
                words = None
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                    words = str(following.value.value)
                member = Member(node, base.__module__, words)
            elif isinstance(node, Function):
                name, member = node.name, Member(node, base.__module__, ast.get_docstring(node, clean=False))
                if "overload" in member.decorators:
                    overloads.append(node)
                    continue
                member.overloads, overloads = overloads, []
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                name = node.targets[0].attr  # of a parameter, whose type it has
                typed = vars(cls)["__init__"].__annotations__.get(ast.unparse(node.value))
                if name.startswith("_") or typed is None:
                    continue
                annotation = ast.parse(typed, mode="eval").body
                member = Member(ast.AnnAssign(node.targets[0], annotation, simple=0), base.__module__)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in own:
                name = ast.unparse(node.targets[0])
                member = replace(own[node.value.id], other_name=node.value.id)
            else:
                continue
            if name in DUNDERS or not name.startswith("_"):
                own[name] = member
        found |= {name: member for name, member in own.items() if name not in found}
    return found


def verb(member: Member) -> str:
    """Return how a facade does it. What a cancel does over there, it does too when it comes on the way back."""
    promises = any(words in (member.words or "") for words in PROMISES)
    return "take" if member.kind == "wait" and promises else member.kind


def is_iterator(cls: type) -> bool:
    return hasattr(cls, "__anext__")


def needs_facade(cls: type) -> bool:
    """Return True for a class that something can be waited for in, at once or by what it gives."""
    packages = ("execsrv.client", "execsrv.pool", "execsrv.agents")
    if not cls.__module__.startswith(packages) or issubclass(cls, BaseException):
        return False
    return is_iterator(cls) or any(
        isinstance(member.node, ast.AsyncFunctionDef) or member.kind in ("enter", "iterate", "iterating property")
        for member in members(cls).values()
    )


def given(member: Member) -> Iterator[type]:
    """Return the classes of the package that a member gives."""
    node = member.node
    annotation = node.annotation if isinstance(node, ast.AnnAssign) else node.returns
    for name in ast.walk(annotation) if annotation is not None else ():
        if isinstance(name, ast.Name) and (cls := class_of(name.id, member.module)) is not None:
            yield cls


def facades() -> dict[type, bool]:
    """Return the classes that get a facade, and for each whether a block gives it."""
    found: dict[type, bool] = {execsrv.Client: True} | dict.fromkeys(MADE, True)
    waiting = [member for cls in found for member in members(cls).values()]
    waiting += [function_of(module, name) for module, names in (HELPERS | AGENTS).items() for name in names]
    while waiting:
        member = waiting.pop()
        for cls in given(member):
            if cls in (Input, Output) or not needs_facade(cls):
                continue
            if cls not in found:
                waiting += members(cls).values()
            found[cls] = found.get(cls, False) or member.kind == "enter"
    return dict(sorted(found.items(), key=lambda item: item[0].__name__))


def home(module: str) -> str:
    """Return the module of a world that has what a module of the package defines."""
    return "agents" if module in AGENTS else module.rpartition(".")[2]


def function_of(module: str, name: str) -> Member:
    """Return a function of a module."""
    node = next(node for node in tree(module).body if isinstance(node, Function) and node.name == name)
    return Member(node, module, ast.get_docstring(node, clean=False))


# -- how it is written --


class Module:
    """One generated file."""

    def __init__(self, world: str, source: str) -> None:
        self.world = world
        self.source = source
        self.is_sync = world == "sync"
        self.imports: dict[str, set[str]] = {}
        self.facade_imports: dict[str, set[str]] = {}
        self.text = ""

    def add(self, module: str, *names: str) -> None:
        self.imports.setdefault(module, set()).update(names)

    def annotation(self, node: ast.expr | None, module: str) -> str:
        """Return an annotation in this world's words, and import what it names."""
        if node is None:
            return "None"
        for name in ast.walk(node):
            if not isinstance(name, ast.Name):
                continue
            cls = class_of(name.id, module)
            if cls in (Input, Output):
                name.id = STREAMS[self.world][cls.__name__]
                self.add(
                    "io" if name.id == "BufferedReader" else f"execsrv._portal.{WORLDS[self.world]}_streams", name.id
                )
            elif cls is not None and cls in FACADES:
                if (own := home(cls.__module__)) != home(self.source):
                    self.facade_imports.setdefault(f"execsrv.{self.world}.{own}", set()).add(name.id)
            elif (origin := origins(module).get(name.id)) is not None:
                self.add(origin, name.id)
        return ast.unparse(node)

    def signature(self, function: Function, module: str) -> str:
        """Return the parameters of a function as they are written, and import what they name."""
        arguments = function.args
        for node in ast.walk(arguments):
            if isinstance(node, ast.arg) and node.annotation is not None:
                node.annotation = ast.parse(self.annotation(node.annotation, module), mode="eval").body
        for default in (*arguments.defaults, *arguments.kw_defaults):
            self.annotation(default, module)
        return ast.unparse(arguments)

    def returns(self, member: Member, function: Function) -> str:
        """Return what a function gives in this world."""
        if member.kind in ("wait", "plain", "property"):
            return self.annotation(function.returns, member.module)
        assert isinstance(function.returns, ast.Subscript)
        inside = self.annotation(function.returns.slice, member.module)
        if member.kind == "enter" and not any(cls in FACADES for cls in given(member)):
            self.add(f"execsrv._portal.{WORLDS[self.world]}", "Opened")
            inside = f"Opened[{inside}]"
        match member.kind:
            case "enter" if self.is_sync:
                return inside
            case "enter":
                self.add("execsrv._portal.awaiting", "Opening")
                return f"Opening[{inside}]"
            case _:
                self.add(f"execsrv._portal.{WORLDS[self.world]}", "Items")
                return f"Items[{inside}]"

    def words(self, words: str | None) -> str:
        """Return a docstring in the words of this world."""
        if words is None:
            return ""
        if self.is_sync:
            for old, new in SYNC_WORDS.items():
                words = re.sub(old, new, words)
        quotes = 'r"""' if "\\" in words else '"""'
        return f'{quotes}{words}"""'

    def method(self, cls: type, name: str, member: Member, is_held: bool) -> Iterator[str]:
        """Yield the lines of one member of a facade."""
        words = self.words(STREAM_WORDS.get((self.world, name), member.words))
        if isinstance(node := member.node, ast.AnnAssign):
            annotation = self.annotation(node.annotation, member.module)
            yield f"@property\ndef {name}(self) -> {annotation}:\n    {words}\n    return self._get({name!r})"
            if isinstance(node.target, ast.Name):
                yield f"@{name}.setter\ndef {name}(self, value: {annotation}) -> None:\n    self._inner.{name} = value"
            return
        shown = "close" if name == "aclose" else name
        is_async = not self.is_sync and member.kind == "wait"
        head = f"{'async ' if is_async else ''}def {shown}"
        for overload in member.overloads:
            self.add("typing", "overload")
            signature = self.signature(overload, member.module)
            yield f"@overload\n{head}({signature}) -> {self.returns(member, overload)}: ..."
        returns = self.returns(member, node)
        signature = self.signature(node, member.module)
        passed = ", ".join([repr(name), *arguments(node)[1:]])
        match member.kind:
            case "property":
                yield f"@property\n{head}({signature}) -> {returns}:\n    {words}\n    return self._get({name!r})"
            case "iterating property":
                body = f"return self._items(self._inner.{name}, {name!r})"
                yield f"@property\n{head}({signature}) -> {returns}:\n    {words}\n    {body}"
            case "iterate":
                yield f"{head}({signature}) -> {returns}:\n    {words}\n    return self._iterate({passed})"
            case _:
                await_ = "await " if is_async else ""
                call = f"{await_}self._{verb(member)}({passed})"
                yield f"{head}({signature}) -> {returns}:\n    {words}\n    return {call}"

    def facade(self, cls: type, is_held: bool) -> None:
        """Write the facade of a class."""
        own = members(cls)
        if (higher := next((each for each in cls.__mro__[1:] if each in FACADES), None)) is not None:
            base = higher.__name__
            self.add(f"execsrv.{self.world}.{higher.__module__.rpartition('.')[2]}", base)
            own = {name: member for name, member in own.items() if member.module == cls.__module__}
        else:
            base = "Made" if cls in MADE else "Held" if is_held else "Facade"
            self.add(f"execsrv._portal.{WORLDS[self.world]}", base)
        self.add(cls.__module__, f"{cls.__name__} as Trio{cls.__name__}")
        generic = [each for each in definition(cls).bases if ast.unparse(each).startswith("Generic[")]
        bases = ", ".join([base, *(self.annotation(each, cls.__module__) for each in generic)])
        self.text += f"class {cls.__name__}({bases}, of=Trio{cls.__name__}):\n"
        self.text += indented(self.words(ast.get_docstring(definition(cls), clean=False)))
        if cls in MADE:
            self.maker(cls)
        for name, member in own.items():
            if name in ("aclose", "close") and is_held:
                continue
            if member.other_name is not None:
                self.text += f"\n    {name} = {member.other_name}\n"
                continue
            for lines in self.method(cls, name, member, is_held):
                self.text += "\n" + indented(lines)
        if is_iterator(cls):
            self.iterator(cls)
        self.text += "\n\n"

    def maker(self, cls: type) -> None:
        """Write how it is made."""
        node = next(node for node in definition(cls).body if isinstance(node, Function) and node.name == "__init__")
        self.add("functools", "partial")
        call = ", ".join([f"Trio{cls.__name__}", *arguments(node)[1:]])
        head = f"def __init__({self.signature(node, cls.__module__)}) -> None:"
        self.text += "\n" + indented(f"{head}\n    self._make(partial({call}))")

    def iterator(self, cls: type) -> None:
        """Write that the facade itself is iterated over."""
        node = next(node for node in definition(cls).body if isinstance(node, Function) and node.name == "__anext__")
        item = self.annotation(node.returns, cls.__module__)
        words = self.words(ast.get_docstring(node, clean=False))
        if self.is_sync:
            self.add("typing", "Self")
            self.text += indented("\ndef __iter__(self) -> Self:\n    return self")
            self.text += indented(f"\ndef __next__(self) -> {item}:\n    {words}\n    return self._next()")
        else:
            self.add("typing", "Self")
            self.text += indented("\ndef __aiter__(self) -> Self:\n    return self")
            self.text += indented(
                f"\nasync def __anext__(self) -> {item}:\n    {words}\n    return await self._take('__anext__')"
            )

    def function(self, name: str) -> None:
        """Write a way to a server."""
        member = function_of(self.source, name)
        node = member.node
        assert member.kind == "enter"
        assert isinstance(node, Function)
        returns, signature = self.returns(member, node), self.signature(node, member.module)
        self.add(f"execsrv._portal.{WORLDS[self.world]}", "Facade")
        self.add("functools", "partial")
        maker = "entered" if self.is_sync else "Opening"
        self.add(f"execsrv._portal.{WORLDS[self.world]}", maker)
        call = ", ".join([f"trio_{name}", *arguments(node)])
        self.add(self.source, f"{name} as trio_{name}")
        self.text += f"def {name}({signature}) -> {returns}:\n    {self.words(member.words)}\n"
        self.text += f"    return {maker}(Facade._kinds, partial({call}))\n\n\n"

    def helper(self, name: str, source: str) -> None:
        """Write a function that is given an object of the client first."""
        member = function_of(source, name)
        node = member.node
        assert isinstance(node, Function)
        self.add(source, f"{name} as trio_{name}")
        is_async = not self.is_sync and member.kind == "wait"
        returns, signature = self.returns(member, node), self.signature(node, member.module)
        own, *_ = passed = arguments(node)
        call = f"{own}._{verb(member)}({', '.join([f'trio_{name}', *passed])})"
        self.text += (
            f"{'async ' if is_async else ''}def {name}({signature}) -> {returns}:\n    {self.words(member.words)}\n"
        )
        self.text += f"    return {'await ' if is_async else ''}{call}\n\n\n"

    def run(self) -> None:
        """Write `run`, from the signature of the client's."""
        member = members(execsrv.Client)["run"]
        assert not isinstance(member.node, ast.AnnAssign)
        for node in (*member.overloads, member.node):
            own = ast.parse(ast.unparse(node)).body[0]
            assert isinstance(own, Function)
            own.args.args.pop(0)
            head = f"def run({self.signature(own, member.module)}) -> {self.returns(member, own)}:"
            head = head if self.is_sync else f"async {head}"
            if node is not member.node:
                self.add("typing", "overload")
                self.text += f"@overload\n{head} ...\n"
                continue
            with_, await_ = ("with", "") if self.is_sync else ("async with", "await ")
            passed = ", ".join(arguments(own))
            self.text += f'{head}\n    """{RUN_WORDS}"""\n    {with_} launch() as client:\n'
            self.text += f'        return {await_}client._wait("run", {passed})\n\n\n'

    def written(self) -> str:
        """Return the whole file."""
        head = HEAD.format(self.source)
        head += '# mypy: disable-error-code="no-any-return"\n'
        head += f'"""{FILE_WORDS[self.world]}"""\n\nfrom __future__ import annotations\n\n'
        if self.facade_imports:
            self.add("typing", "TYPE_CHECKING")
        for module, names in sorted(self.imports.items()):
            head += f"from {module} import {', '.join(sorted(names))}\n" if module else ""
        head += "".join(f"import {name}\n" for name in sorted(self.imports.get("", ())))
        if self.facade_imports:
            head += "\nif TYPE_CHECKING:\n"
            for module, names in sorted(self.facade_imports.items()):
                head += f"    from {module} import {', '.join(sorted(names))}\n"
        return formatted(head + "\n\n" + self.text)


PACKAGE_WORDS = {
    "sync": """The client for plain code: scripts, notebooks, threads. The words of `execsrv`, without `await`.

    import execsrv.sync

    with execsrv.sync.launch() as client:
        print(client.run(["uname", "-a"], text=True).stdout)

Each call blocks the thread that makes it. What is opened (`launch`, `connect`, `client.start`) is a context manager, or
is kept until its `close()`. What is left open when the interpreter exits is closed then.
""",
    "asyncio": """The client for asyncio. Its words are those of `execsrv`.

    import asyncio
    import execsrv.asyncio

    async def main():
        async with execsrv.asyncio.launch() as client:
            print((await client.run(["uname", "-a"], text=True)).stdout)

    asyncio.run(main())

What is opened (`launch`, `connect`, `client.start`) is an asynchronous context manager; awaited instead, it stays open
until its `close()`. A task that is cancelled ends what it waits for.
""",
}
FILE_WORDS = {
    "sync": "The client in plain code. The words are explained where they are defined, in the client for trio.",
    "asyncio": "The client under asyncio. The words are explained where they are defined, in the client for trio.",
}

SYNC_WORDS = {
    r"`async with`": "`with`",
    r"async with": "with",
    r"async for": "for",
    r", awaited;": ";",
    r"\basync\s+iterators": "iterators",
    r"\bawait ": "",
    r"Cancelling one ": "An interrupt of one ",
    r"\bCancelling\b": "An interrupt",
    r"\btask\b": "thread",
}


def definition(cls: type) -> ast.ClassDef:
    return next(n for n in tree(cls.__module__).body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)


def arguments(function: Function) -> list[str]:
    """Return a function's parameters as they are passed on."""
    own = function.args
    return [
        *(each.arg for each in (*own.posonlyargs, *own.args)),
        *([f"*{own.vararg.arg}"] if own.vararg else []),
        *(f"{each.arg}={each.arg}" for each in own.kwonlyargs),
        *([f"**{own.kwarg.arg}"] if own.kwarg else []),
    ]


def indented(lines: str) -> str:
    """Return the lines of code as they stand in a class; those of a docstring stand so already."""
    code, quotes, rest = lines.partition('"""')
    code = re.sub(r"^(?=.)", "    ", code.replace("\n    \n", "\n"), flags=re.M) if code else "    "
    if not quotes:
        return code + "\n"
    words, quotes, rest = rest.partition('"""')
    return code + '"""' + words + quotes + re.sub(r"\n(?=.)", "\n    ", rest) + "\n"


def formatted(code: str) -> str:
    """Return code in the format of all the others."""
    ruff = str(Path(sys.executable).with_name("ruff"))
    for command in (["check", "--quiet", "--select", "I,F401", "--fix-only"], ["format"]):
        argv = [ruff, *command, "--stdin-filename", str(ROOT / "facade.py"), "-"]
        code = subprocess.run(argv, input=code, text=True, stdout=subprocess.PIPE, check=True).stdout
    return code


FACADES = facades()


def generated() -> dict[Path, str]:
    """Return every generated file as it should be."""
    tree.cache_clear()
    files: dict[Path, str] = {}
    for world in WORLDS:
        by_module: dict[str, list[type]] = {}
        for cls in FACADES:
            if cls.__module__ not in AGENTS:
                by_module.setdefault(cls.__module__, []).append(cls)
        for source, classes in by_module.items():
            tree.cache_clear()
            module = Module(world, source)
            for cls in sorted(classes, key=lambda cls: definition(cls).lineno):
                module.facade(cls, FACADES[cls])
            for name in HELPERS.get(source, ()):
                module.helper(name, source)
            files[ROOT / world / f"{source.rpartition('.')[2]}.py"] = module.written()
        tree.cache_clear()
        files[ROOT / world / "agents.py"] = agents(world)
        tree.cache_clear()
        module = Module(world, execsrv.connect.__module__)
        for name in FUNCTIONS:
            module.function(name)
        module.run()
        files[ROOT / world / "connect.py"] = module.written()
        files[ROOT / world / "__init__.py"] = package(world)
    return files


def agents(world: str) -> str:
    """Return the module that has the tools of agents."""
    module = Module(world, "execsrv.agents")
    for cls in FACADES:
        if cls.__module__ in AGENTS:
            module.facade(cls, FACADES[cls])
    for source, names in AGENTS.items():
        for name in names:
            module.helper(name, source)
    return module.written()


def package(world: str) -> str:
    """Return the module that has all names of a world."""
    code = f'{HEAD.format("the client")}"""{PACKAGE_WORDS[world]}"""\n\n'
    classes = [cls for cls in FACADES if cls.__module__ not in AGENTS]
    for cls in classes:
        code += f"from execsrv.{world}.{cls.__module__.rpartition('.')[2]} import {cls.__name__}\n"
    code += f"from execsrv.{world}.connect import {', '.join([*FUNCTIONS, 'run'])}\n"
    modules = [source.rpartition(".")[2] for source in HELPERS]
    code += f"from execsrv.{world} import {', '.join(modules)}\n"
    names = sorted([*modules, *(cls.__name__ for cls in classes), *FUNCTIONS, "run"])
    return formatted(f"{code}\n__all__ = {names}\n")


def main() -> None:
    """Write them."""
    for path, text in generated().items():
        path.write_text(text)
        print(path.relative_to(ROOT.parent))


if __name__ == "__main__":
    main()
