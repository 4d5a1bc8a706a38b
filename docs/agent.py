"""An agent that mends a repository, and leaves nothing behind. Its model is a script: `python agent.py REPOSITORY`."""

import json
import re
import sys
import tempfile

import trio

import execsrv
from execsrv.agents import call, definitions, open_tools


def model(functions, repository):
    """Call a function with each `yield`, which gives what came of it; return the last words. A real one thinks."""
    assert "exec_command" in [function["name"] for function in functions]
    yield "exec_command", {"cmd": ["git", "clone", "-q", repository, "."]}

    said = yield "exec_command", {"cmd": "python3 -m unittest"}
    failed = re.search(r"FAIL: test_(\w+)", said)
    if failed is None:
        return "no test fails"

    said = yield "exec_command", {"cmd": f"grep -n -A1 'def {failed[1]}(' *.py"}
    file, line = re.search(r"^(\w+\.py)-(\d+)-.* \+ 1$", said, re.M).groups()
    yield "exec_command", {"cmd": f"sed -i '{line}s/ + 1$//' {file}"}

    said = yield "exec_command", {"cmd": "python3 -m unittest", "yield_time_ms": 0}
    while session := re.search(r"running with session ID (\d+)", said):
        said = yield "write_stdin", {"session_id": int(session[1])}
    if "exited with code 0" not in said:
        return f"cannot mend it: {said}"

    said = yield "exec_command", {"cmd": "git diff"}
    return said.partition("Output:\n")[2]


async def agent(repository):
    """Do what the model asks for, in a folder that is gone afterwards, as is all that was started."""
    with tempfile.TemporaryDirectory() as folder:
        async with execsrv.connect_in_process(own_process=True) as client, open_tools(client, cwd=folder) as tools:
            turns = model(definitions("openai"), repository)
            name, arguments = next(turns)
            while True:
                try:
                    answer = str(await call(tools, name, json.dumps(arguments)))
                except execsrv.ExecsrvError as error:
                    answer = f"error: {error}"
                print(f"{name} {json.dumps(arguments)}\n{answer}", file=sys.stderr)
                try:
                    name, arguments = turns.send(answer)
                except StopIteration as end:
                    return end.value


if __name__ == "__main__":
    print(trio.run(agent, sys.argv[1]), end="")
