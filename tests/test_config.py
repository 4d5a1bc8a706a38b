"""The configuration: where each setting may come from, what wins, what is refused, and what is shown."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from execsrv._cli.config import Loaded, as_toml, load
from execsrv._cli.settings import CLIENT_SETTINGS, SETTINGS, Setting
from execsrv.errors import InvalidConfigError
from execsrv.limits import CLIENT_DEFAULTS, DEFAULTS, KIB, MIB, ClientConfig, Limits, ServerConfig
from tests.conftest import Server
from tests.peers import PATIENCE

OpenServer = Callable[[str, ServerConfig], Server]

ROOT = Path(__file__).parent.parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("EXECSRV_")}
NUMBERS = [setting for setting in SETTINGS.values() if setting.bounds]
WAYS = ["flag", "environment", "file"]

each_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
each_number = pytest.mark.parametrize("setting", NUMBERS, ids=[setting.name for setting in NUMBERS])
each_way = pytest.mark.parametrize("way", WAYS)


def serve(*args: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "execsrv", "serve", *args]
    options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
    return subprocess.run(argv, env=CLEAN | (env or {}), capture_output=True, text=True, timeout=60, **options)


def other(setting: Setting) -> Any:
    """An allowed value that is not the default."""
    if setting.is_switch:
        return not setting.default
    if setting.is_list:
        others = {
            "NAME=COMMAND": ("a=ssh host:22 '/opt/a:b/c'", "d=e,f"),
            "UID": (1, 2),
            "HOST": ("a", "b.example"),
            "ORIGIN": ("https://a.example", "http://b:80"),
        }
        return others.get(setting.facts["metavar"], ("/a", "/b c"))
    if setting.choices:
        return setting.choices[-1]
    return setting.facts["le"] if setting.bounds else "ws://127.0.0.1:0"


def text(setting: Setting, value: Any) -> str:
    if isinstance(value, tuple):
        return setting.separator.join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def arguments(setting: Setting, value: Any) -> list[str]:
    if setting.is_switch:
        return [setting.flag if value else setting.no_flag]
    if setting.is_list:
        return [argument for item in value for argument in (setting.flag, str(item))]
    return [setting.flag, text(setting, value)]


def given(way: str, setting: Setting, value: Any, folder: Path) -> Loaded:
    """What is loaded when one setting is given in one way."""
    match way:
        case "flag":
            return load({setting.name: value if isinstance(value, bool) else text(setting, value)}, {})
        case "environment":
            return load({}, {setting.variable: text(setting, value)})
        case _:
            file = folder / "execsrv.toml"
            file.write_text(f"{setting.name} = {json.dumps(value)}\n")
            return load({"config": str(file)}, {})


def value_of(loaded: Loaded, name: str) -> Any:
    return loaded.listen if name == "listen" else getattr(loaded.config, name)


# -- the fields themselves --


def test_settings_are_the_fields() -> None:
    fields = {field.name for field in dataclasses.fields(ServerConfig)}
    assert SETTINGS.keys() == fields | {"listen"}
    assert CLIENT_SETTINGS.keys() == {field.name for field in dataclasses.fields(ClientConfig)}
    assert isinstance(DEFAULTS, Limits)
    assert isinstance(CLIENT_DEFAULTS, Limits)
    assert msgspec.convert(dataclasses.asdict(DEFAULTS), ServerConfig) == DEFAULTS


def test_every_setting_says_what_it_is() -> None:
    for setting in (*SETTINGS.values(), *CLIENT_SETTINGS.values()):
        assert setting.description.endswith("."), setting
        assert (setting.unit == "bytes") == ("bytes" in setting.name), setting
        assert "seconds" not in setting.name, "times are in seconds, and do not say so each"
        assert (setting.unit == "seconds") == isinstance(setting.default, float), setting
        if isinstance(setting.default, int | float) and not setting.is_switch:
            assert "le" in setting.facts, setting
            assert {"ge", "gt"} & setting.facts.keys(), setting


def test_a_json_schema_comes_out_of_the_fields() -> None:
    properties = msgspec.json.schema(ServerConfig)["$defs"]["ServerConfig"]["properties"]
    for name, setting in SETTINGS.items():
        if name != "listen":
            assert properties[name]["description"] == setting.description
            assert properties[name]["default"] == setting.default
    assert (properties["max_connections"]["minimum"], properties["max_connections"]["type"]) == (1, "integer")


def test_a_list_says_what_stands_between_its_items() -> None:
    for name, between in [
        ("file_roots", "with `:` between"),
        ("allowed_hosts", "with `,`"),
        ("runners", "one on each line"),
    ]:
        assert between in SETTINGS[name].allowed
        assert between in serve(env={SETTINGS[name].variable: "="}).stderr


def test_the_documentation_has_every_setting() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    written = runpy.run_path(str(ROOT / "docs" / "configuration.py"))["written"]
    assert page == written(page), "run `python docs/configuration.py`"


# -- where a value comes from --


@each_setting
@each_way
def test_every_setting_in_every_way(way: str, setting: Setting, tmp_path: Path) -> None:
    loaded = given(way, setting, other(setting), tmp_path)
    assert value_of(loaded, setting.name) == other(setting)
    assert type(value_of(loaded, setting.name)) is type(setting.default)
    assert loaded.sources[setting.name].startswith(way)
    for name, untouched in SETTINGS.items():
        if name != setting.name:
            assert (value_of(loaded, name), loaded.sources[name]) == (untouched.default, "default")


@pytest.mark.parametrize("ways", [WAYS[i:] for i in range(4)], ids=lambda ways: "+".join(ways) or "default")
def test_precedence(ways: list[str], tmp_path: Path) -> None:
    """Of those that have it, the first wins."""
    file = tmp_path / "execsrv.toml"
    file.write_text("max_connections = 3\nping_timeout = 4\n" if "file" in ways else "")
    flags = {"config": str(file)} | ({"max_connections": "1"} if "flag" in ways else {})
    environ = {"EXECSRV_MAX_CONNECTIONS": "2"} if "environment" in ways else {}
    loaded = load(flags, environ)
    value, source = {
        "flag": (1, "flag --max-connections"),
        "environment": (2, "environment EXECSRV_MAX_CONNECTIONS"),
        "file": (3, f"file {file}"),
        "default": (256, "default"),
    }[[*ways, "default"][0]]
    assert (loaded.config.max_connections, loaded.sources["max_connections"]) == (value, source)
    assert loaded.config.ping_timeout == (4 if "file" in ways else 20)


def test_codex_is_other_defaults(tmp_path: Path) -> None:
    loaded = load({}, {}, codex=True)
    assert (loaded.listen, loaded.config.resume_grace) == ("ws://127.0.0.1:0", 80)
    assert loaded.config.http_variables == ("*",)
    changed = {name for name, source in loaded.sources.items() if source == "default with --codex"}
    assert changed == {"listen", "resume_grace", "http_variables"}
    for name in SETTINGS.keys() - changed:
        assert (value_of(loaded, name), loaded.sources[name]) == (SETTINGS[name].default, "default")
    (tmp_path / "file").write_text("resume_grace = 3")
    for flags, environ, grace in [
        ({"resume_grace": "1"}, {"EXECSRV_RESUME_GRACE": "2"}, 1),
        ({}, {"EXECSRV_RESUME_GRACE": "2"}, 2),
        ({"config": str(tmp_path / "file")}, {}, 3),
    ]:
        assert load(flags, environ, codex=True).config.resume_grace == grace
    printed = serve("--codex", "--listen", "stdio://", "--print-config").stdout
    assert 'listen = "stdio://"  # flag --listen\n' in printed
    assert "resume_grace = 80.0  # default with --codex\n" in printed


def test_which_file(tmp_path: Path) -> None:
    for number, name in enumerate(["by_flag", "by_variable"], start=1):
        (tmp_path / name).write_text(f"max_connections = {number}")
    environ = {"EXECSRV_CONFIG": str(tmp_path / "by_variable")}
    assert load({"config": None}, environ).config.max_connections == 2
    assert load({"config": str(tmp_path / "by_flag")}, environ).config.max_connections == 1


@each_way
def test_bytes_may_have_a_unit(way: str, tmp_path: Path) -> None:
    setting = SETTINGS["max_message_bytes"]
    for written, meant in [("64KiB", 64 * KIB), ("3 MiB", 3 * MIB), ("1GiB", 1024 * MIB), ("1024 GiB", 1024**4)]:
        assert given(way, setting, written, tmp_path).config.max_message_bytes == meant
    for written in ["1 kib", "1KB", "1.5MiB", "MiB", "-1MiB", "1  MiB", "9" * 99 + "GiB", "1025 GiB", "9" * 9999]:
        with pytest.raises(InvalidConfigError):
            given(way, setting, written, tmp_path)
    with pytest.raises(InvalidConfigError):
        given(way, SETTINGS["max_connections"], "1KiB", tmp_path)


def test_lists_of_paths(tmp_path: Path) -> None:
    for way in WAYS[:2]:
        assert given(way, SETTINGS["file_roots"], "/a:/b", tmp_path).config.file_roots == ("/a", "/b")
    assert load({"file_roots": ("/a", "/b:/c")}, {}).config.file_roots == ("/a", "/b", "/c")
    assert load({"file_roots": ()}, {}).config.file_roots == ("/",)
    (tmp_path / "file").write_text('file_roots = ["/a:b"]')
    assert load({"config": str(tmp_path / "file")}, {}).config.file_roots == ("/a:b",)
    for wrong in (("",), ("/a", ""), ("/a::/b",), ("a",), ("/a\0",)):
        with pytest.raises(InvalidConfigError, match="flag --file-roots"):
            load({"file_roots": wrong}, {})
    for empty in ("[]", '[""]', '"/a"'):
        (tmp_path / "file").write_text(f"file_roots = {empty}")
        with pytest.raises(InvalidConfigError, match="expected absolute paths"):
            load({"config": str(tmp_path / "file")}, {})


def test_switches_as_text() -> None:
    for written, meant in [("true", True), ("false", False), ("1", True), ("0", False)]:
        assert load({}, {"EXECSRV_ALLOW_DIRECT_EXEC": written}).config.allow_direct_exec is meant


# -- what is refused --


def refused(way: str, setting: Setting, value: Any, folder: Path) -> str:
    """The complaint, which has to name setting, source, value and what is allowed."""
    with pytest.raises(InvalidConfigError) as caught:
        given(way, setting, value, folder)
    complaint = str(caught.value)
    assert f"cannot set {setting.name} to " in complaint
    assert f"({way} " in complaint
    assert setting.allowed in complaint
    return complaint


@each_number
@each_way
def test_numbers_out_of_bounds(way: str, setting: Setting, tmp_path: Path) -> None:
    most = setting.facts["le"]
    least = setting.facts.get("ge", setting.facts.get("gt"))
    below = [least - 1] + [least] * ("gt" in setting.facts)
    for value in [*below, most + 1, -most]:
        assert str(value) in refused(way, setting, value, tmp_path)
    if "ge" in setting.facts:
        assert value_of(given(way, setting, least, tmp_path), setting.name) == least


@each_setting
def test_what_is_no_value(setting: Setting, tmp_path: Path) -> None:
    if not isinstance(setting.default, str):
        wrong_of = {"PATTERN": ["", "a=b", "\0"], "HOST": ["", " 1"]}
        for value in wrong_of.get(setting.facts.get("metavar", ""), ["", "x", "nan", "-inf", "1_0", " 1", "maybe"]):
            assert repr(value) in refused("environment", setting, value, tmp_path)
            refused("file", setting, value, tmp_path)
        refused("file", setting, "1", tmp_path)
    for wrong in (["/", 1.5], 2 if setting.is_switch else True):
        refused("file", setting, wrong, tmp_path)


def test_times_that_are_no_numbers(tmp_path: Path) -> None:
    for value in ["nan", "inf", "-inf"]:
        (tmp_path / "file").write_text(f"resume_grace = {value}")
        with pytest.raises(InvalidConfigError, match="resume_grace"):
            load({"config": str(tmp_path / "file")}, {})


def test_wrong_even_where_it_is_overridden() -> None:
    with pytest.raises(InvalidConfigError, match="environment EXECSRV_MAX_CONNECTIONS"):
        load({"max_connections": "1"}, {"EXECSRV_MAX_CONNECTIONS": "many"})


OF_A_SERVICE = {
    "EXECSRV_SERVICE_HOST": "10.0.0.1",
    "EXECSRV_SERVICE_PORT": "8765",
    "EXECSRV_SERVICE_PORT_WEBSOCKET": "8765",
    "EXECSRV_PORT": "tcp://10.0.0.1:8765",
    "EXECSRV_PORT_8765_TCP": "tcp://10.0.0.1:8765",
    "EXECSRV_PORT_8765_TCP_PROTO": "tcp",
    "EXECSRV_PORT_8765_TCP_PORT": "8765",
    "EXECSRV_PORT_8765_TCP_ADDR": "10.0.0.1",
    "EXECSRV_BLUE_SERVICE_HOST": "10.0.0.2",
    "EXECSRV_BLUE_PORT": "udp://10.0.0.2:53",
    "EXECSRV_NAME": "/web/execsrv",
    "EXECSRV_ENV_PATH": "/bin",
}


def test_variables_that_others_make_for_a_service_are_no_settings() -> None:
    loaded = load({}, OF_A_SERVICE | {"EXECSRV_URL": "ws://127.0.0.1:1", "EXECSRV_MAX_CONNECTIONS": "3"})
    assert {name for name, source in loaded.sources.items() if source != "default"} == {"max_connections"}
    assert serve(env=OF_A_SERVICE).returncode == 0
    for variable, value in [("EXECSRV_PORT", "8765"), ("EXECSRV_NAME", "x"), ("EXECSRV_SERVICE", "x")]:
        with pytest.raises(InvalidConfigError, match=f"unknown environment variable `{variable}`"):
            load({}, {variable: value})


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"max_conections = 1", "unknown key `max_conections` in `{}`: did you mean `max_connections`?"),
        (b"max-connections = 1", "unknown key `max-connections` in `{}`: did you mean `max_connections`?"),
        (b"[server]\nmax_connections = 1", "unknown key `server` in `{}`: `execsrv serve --print-config` lists"),
        (b"leave_timeout = 1", "unknown key `leave_timeout` in `{}`"),
        (b"max_connections = 0", "cannot set max_connections to 0 (file {}): expected a whole number, 1 to 1000000"),
        (b"max_connections = ", "cannot read the configuration file `{}`: Invalid value (at end of document)"),
        (b"max_connections = 1\nmax_connections = 2", "cannot read the configuration file `{}`: "),
        (b"listen = '\xff'", "cannot read the configuration file `{}`: 'utf-8' codec"),
        (b"max_connections = " + b"9" * 9999, "cannot read the configuration file `{}`: "),
        (b"listen = " + b"[" * 20000, "cannot read the configuration file `{}`: "),
        (None, "cannot read the configuration file `{}`: No such file or directory"),
    ],
)
def test_bad_files(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "execsrv.toml"
    if content is not None:
        file.write_bytes(content)
    done = serve("--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint.format(file) in done.stderr


def test_a_bad_file_that_a_variable_names(tmp_path: Path) -> None:
    file = tmp_path / "execsrv.toml"
    file.write_text("max_conections = 1")
    assert serve(env={"EXECSRV_CONFIG": str(file)}).stderr == serve("--config", str(file)).stderr


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("args", "env", "complaint"),
    [
        (
            ["--max-connections", "0"],
            {},
            "cannot set max_connections to '0' (flag --max-connections): expected a whole",
        ),
        (["--resume-grace", "-1"], {}, "cannot set resume_grace to '-1' (flag --resume-grace): expected a number of"),
        (["--max-conections", "1"], {}, "--max-connections"),
        (
            [],
            {"EXECSRV_PING_TIMEOUT": ""},
            "cannot set ping_timeout to '' (environment EXECSRV_PING_TIMEOUT): expected",
        ),
        ([], {"EXECSRV_MAX_CONECTIONS": "1"}, "did you mean `EXECSRV_MAX_CONNECTIONS`"),
        ([], {"EXECSRV_LISTN": "stdio://"}, "did you mean `EXECSRV_LISTEN`?"),
        ([], {"EXECSRV_": "1"}, "unknown environment variable `EXECSRV_`: `execsrv serve --print-config` lists"),
        (["--print-config"], {"EXECSRV_FILE_THREADS": "0"}, "cannot set file_threads to '0'"),
        (["--config", "/"], {}, "cannot read the configuration file `/`: Is a directory"),
    ],
)
def test_errors_on_the_command_line(args: list[str], env: dict[str, str], complaint: str) -> None:
    done = serve(*args, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


# -- what is shown, and what it does --


def test_print_config_shows_where_each_came_from(tmp_path: Path) -> None:
    file = tmp_path / "execsrv.toml"
    file.write_text('max_message_bytes = "2 MiB"\n')
    done = serve("--print-config", "--no-allow-direct-exec", "--config", str(file), env={"EXECSRV_RESUME_GRACE": "0.5"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "max_connections = 256  # default" in lines
    assert "resume_grace = 0.5  # environment EXECSRV_RESUME_GRACE" in lines
    assert f"max_message_bytes = {2 * MIB}  # file {file}, 2 MiB" in lines
    assert "allow_direct_exec = false  # flag --no-allow-direct-exec" in lines
    assert tomllib.loads(done.stdout).keys() == SETTINGS.keys()


@pytest.mark.few
@each_way
def test_print_config_is_a_config_file(way: str, tmp_path: Path) -> None:
    """Every setting changed, in each way; what is printed of it says the same again through a file."""
    args: list[str] = []
    env: dict[str, str] = {}
    file = tmp_path / "all.toml"
    for setting in SETTINGS.values():
        if way == "flag":
            args += arguments(setting, other(setting))
        elif way == "environment":
            env[setting.variable] = text(setting, other(setting))
        else:
            with file.open("a") as lines:
                lines.write(f"{setting.name} = {json.dumps(other(setting))}\n")
            env["EXECSRV_CONFIG"] = str(file)
    printed = serve("--print-config", *args, env=env).stdout
    wanted = {name: other(setting) for name, setting in SETTINGS.items()}
    assert tomllib.loads(printed) == {
        name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()
    }
    assert printed.count(f"# {way} ") == len(SETTINGS)
    (tmp_path / "printed.toml").write_text(printed)
    again = serve("--print-config", "--config", str(tmp_path / "printed.toml")).stdout
    assert tomllib.loads(again) == tomllib.loads(printed)


@pytest.mark.parametrize("name", ['"quoted" \\', "grüße 🙂", "line\nbreak\t\x7f\x1b", "# no comment"])
def test_print_config_of_odd_names(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text("max_connections = 9")
    printed = as_toml(load({"config": str(file), "listen": f"unix:///{name}"}, {}))
    assert tomllib.loads(printed)["listen"] == f"unix:///{name}"
    assert tomllib.loads(printed)["max_connections"] == 9


def test_settings_that_find_no_room_are_said_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "execsrv", "serve", "--print-config"],
            env=CLEAN, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "execsrv: cannot print the settings: No space left on device\n")


def test_what_is_no_text() -> None:
    with pytest.raises(InvalidConfigError, match="cannot set max_connections to"):
        load({}, {"EXECSRV_MAX_CONNECTIONS": os.fsdecode(b"\xff")})
    with pytest.raises(InvalidConfigError, match="it is not UTF-8"):
        as_toml(load({"listen": os.fsdecode(b"unix:///\xff")}, {}))


def test_help_has_every_setting() -> None:
    done = serve("--help", env={"COLUMNS": "80"})
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    for setting in SETTINGS.values():
        assert f"{setting.flag} " in said
        default = setting.show(setting.default)
        assert not default or f"[default: {default}]" in said
        assert f"{setting.group}:" in said
    assert "[default: ]" not in said
    assert "--window-bytes" not in said


def test_the_server_runs_with_it(tmp_path: Path) -> None:
    """A message that the default takes, and this setting does not."""
    hello = {"id": 1, "method": "initialize", "params": {"clientName": "x" * 2 * KIB}}
    line = json.dumps(hello) + "\n"
    (tmp_path / "execsrv.toml").write_text('max_message_bytes = "1KiB"')
    assert json.loads(serve(input=line).stdout)["id"] == 1
    for args, env in [
        (["--max-message-bytes", "1KiB"], {}),
        ([], {"EXECSRV_MAX_MESSAGE_BYTES": "1024"}),
        (["--config", str(tmp_path / "execsrv.toml")], {}),
    ]:
        answer = json.loads(serve(*args, env=env, input=line).stdout)
        assert (answer["id"], "error" in answer) == (None, True)


def test_where_to_listen_from_the_environment(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/s"
    argv = [sys.executable, "-m", "execsrv", "serve"]
    with subprocess.Popen(argv, env=CLEAN | {"EXECSRV_LISTEN": url}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == url + "\n"
        finally:
            process.terminate()
    assert process.returncode == 0


# -- settings that no other test changes --


async def test_a_smaller_window_may_be_the_largest(open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig(max_window_bytes=1000)).peer()
    assert (await peer.run("a", ["echo", "hi"], windowBytes=1000))[:2] == (0, b"hi\n")
    code, message, data = await peer.refused("process/start", peer.start_params("b", ["true"], windowBytes=1001))
    assert message == "windowBytes is 1001: max_window_bytes (1000) would be exceeded"
    assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "max_window_bytes", "value": 1000})


async def test_ended_sessions_may_be_forgotten_at_once(open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig(exited_retention=0)).peer()
    await peer.run("a", ["true"])
    with trio.fail_after(PATIENCE):
        # It is over when its leader is reaped, right behind the close.
        while (await peer.call("process/list", {}))["processes"]:
            await trio.lowlevel.checkpoint()
    assert (await peer.refused("process/read", {"processId": "a"}))[2]["kind"] == "unknown-process"


async def test_open_files_may_be_few(open_server: OpenServer, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    peer = await open_server("memory", ServerConfig(file_handles=1)).peer()
    params = {"path": str(tmp_path / "f")}
    await peer.call("fs/open", {"handleId": "a", **params})
    assert (await peer.refused("fs/open", {"handleId": "b", **params}))[1].startswith("at most 1 file handles")
    await peer.call("fs/close", {"handleId": "a"})
    await peer.call("fs/open", {"handleId": "b", **params})
