"""The pages on who places servers, followed as far as they can be without a cluster: stand-ins are marked as such."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from execsrv._cli.parsing import parsed
from execsrv._cli.register import command
from execsrv.directories import directory_of
from tests.peers import PATIENCE

DOCS = Path(__file__).parent.parent / "docs"

SRUN = """\
#!/bin/bash
# A stand-in for srun: the command three times, until a SIGTERM.
[ "$1" = --ntasks-per-node=1 ] || exit 2
trap 'kill $(jobs -p)' TERM
for node in 1 2 3; do "${@:2}" & done
wait; wait
"""
SSH = """\
#!/bin/sh
# A stand-in for ssh: the last word is a command line for this machine, whatever the host.
for line; do :; done
exec sh -c "$line"
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.S | re.M)


def has(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment of one who has execsrv in the PATH."""
    has(folder, "execsrv", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m execsrv "$@"\n')
    return {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder)}


def followed(folder: Path, script: str) -> None:
    """Run a script to its end."""
    argv, env = ["bash", "-c", script], surroundings(folder)
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def results(path: Path) -> list[dict[str, Any]]:
    return [each for each in map(json.loads, path.read_text().splitlines()) if "line" in each]


def test_the_script_for_slurm(tmp_path: Path) -> None:
    [script] = blocks("slurm.md", "bash")
    has(tmp_path, "srun", SRUN)
    followed(tmp_path, script.replace("seq 10000", "seq 90"))
    found = results(tmp_path / "results.jsonl")
    assert sorted(result["stdout"] for result in found) == sorted(f"{number}\n" for number in range(1, 91))
    assert all(result["server"].startswith(f"ws://{os.uname().nodename}:") for result in found)
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "results.jsonl"}


@pytest.mark.slow
def test_the_script_for_slurm_between_machines(tmp_path: Path, elsewhere: str) -> None:
    """At an address that no client takes for its own machine's, as those of other nodes are."""
    [script] = blocks("slurm.md", "bash")
    has(tmp_path, "srun", SRUN)
    followed(tmp_path, script.replace("seq 10000", "seq 9").replace("ws://0.0.0.0:0", f"ws://{elsewhere}:0"))
    found = results(tmp_path / "results.jsonl")
    assert sorted(result["stdout"] for result in found) == [f"{number}\n" for number in range(1, 10)]
    assert all(result["server"].startswith(f"ws://{elsewhere}:") for result in found)


@pytest.mark.slow
def test_a_script_for_slurm_that_is_ended_leaves_no_token(tmp_path: Path) -> None:
    """No command ends by itself: it is the script that ends them all."""
    [script] = blocks("slurm.md", "bash")
    has(tmp_path, "srun", SRUN)
    begun = tmp_path / "begun"
    waiting = script.replace("-- echo {}", f"-- sh -c 'touch {begun}; exec sleep 1000'")
    with subprocess.Popen(["bash", "-c", waiting], cwd=tmp_path, env=surroundings(tmp_path)) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        assert [*tmp_path.glob("execsrv-*/token")]
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "begun", "results.jsonl"}


@pytest.mark.slow
def test_hosts_by_ssh(tmp_path: Path) -> None:
    [line] = re.findall(r"^\$ (.*ssh://one.*)$", blocks("hosts.md", "console")[0], re.M)
    has(tmp_path, "ssh", SSH)
    followed(tmp_path, line)
    found = results(tmp_path / "results.jsonl")
    assert [result["exitCode"] for result in found] == [0] * 100
    assert Counter(result["server"] for result in found).keys() <= {"ssh://one", "ssh://two"}


def test_the_unit_of_a_host_says_what_serve_understands() -> None:
    [unit] = blocks("hosts.md", "ini")
    words = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    program, verb, *options = words["ExecStart"].split()
    assert (os.path.basename(program), verb) == ("execsrv", "serve")
    values = parsed(command("serve"), options)
    assert float(values["drain_period"]) < float(words["TimeoutStopSec"])
    [copied] = re.findall(r"scp (tokens .*) root@\$host:(.*)$", blocks("hosts.md", "console")[2], re.M)
    there = {f"{copied[1]}{name}".replace("$host", "%H") for name in copied[0].split()}
    assert {values["tls_certificate_file"], values["tls_key_file"], values["token_file"]} == there


def test_the_manifests_for_kubernetes_say_what_execsrv_understands() -> None:
    yaml = pytest.importorskip("yaml")
    found = {each["kind"]: each for block in blocks("kubernetes.md", "yaml") for each in yaml.safe_load_all(block)}
    pod = found["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    verb, *options = container["args"]
    assert verb == "serve"
    values = parsed(command("serve"), options)
    assert values["listen"].endswith(f":{container['ports'][0]['containerPort']}")
    assert found["NetworkPolicy"]["spec"]["podSelector"] == found["Deployment"]["spec"]["selector"]
    assert found["NetworkPolicy"]["spec"]["ingress"][0]["ports"] == [{"port": 8765}]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")]
    assert [probe["path"] for probe in probes] == ["/livez", "/readyz"]
    assert {f"http://0.0.0.0:{probe['port']}" for probe in probes} == {values["metrics_listen"]}
    assert float(values["drain_period"]) < pod["spec"]["terminationGracePeriodSeconds"]
    assert values["token_file"].startswith(container["volumeMounts"][0]["mountPath"])
    client = found["Pod"]
    allowed = found["NetworkPolicy"]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert allowed.items() <= client["metadata"]["labels"].items()
    line = client["spec"]["containers"][0]["command"][2]
    words = shlex.split(line.partition("| execsrv map ")[2])
    given = parsed(command("map"), words)
    assert repr(directory_of(given["pool"])) == "<KubernetesDirectory commands/app=execsrv>"


def test_the_commands_of_the_manifests_for_kubernetes_reach_each_other(tmp_path: Path, elsewhere: str) -> None:
    """At an address that no client takes for its own machine's, as those of pods are. There is no API here to ask."""
    yaml = pytest.importorskip("yaml")
    found = {each["kind"]: each for block in blocks("kubernetes.md", "yaml") for each in yaml.safe_load_all(block)}
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    [made, *_] = re.findall(r"^\$ (.*)$", blocks("kubernetes.md", "console")[0], re.M)
    followed(tmp_path, f"{made} && mv pool.token token")
    served = " ".join(container["args"]).replace("/secrets", str(tmp_path)).replace("0.0.0.0", elsewhere)
    line = found["Pod"]["spec"]["containers"][0]["command"][2].replace("/secrets", str(tmp_path))
    line = line.replace("kubernetes://commands/app=execsrv", f"ws://{elsewhere}:8765").replace("10000", "9")
    argv = ["bash", "-c", f"exec execsrv {served}"]
    env = surroundings(tmp_path)
    with subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"ws://{elsewhere}:8765\n"
            followed(tmp_path, f"{line} > results")
        finally:
            server.terminate()
    assert sorted(result["stdout"] for result in results(tmp_path / "results")) == [f"{n}\n" for n in range(1, 10)]
