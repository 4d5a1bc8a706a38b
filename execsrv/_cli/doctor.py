"""`execsrv doctor`: the means of this machine to keep hold of processes, for people or as JSON."""

from __future__ import annotations

import msgspec

from execsrv._cli.manners import Manners, colored, print_text
from execsrv._processes.survey import survey


def doctor(*, manners: Manners) -> int:
    """Print the survey of this machine."""
    found = survey()
    if manners.as_json:
        print_text(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return 0
    words = {True: colored("yes", "green"), False: colored("no ", "yellow")}
    kernel = f"kernel: Linux {found.kernel}; {found.minimum_kernel} or later is needed"
    lines = [kernel, "", *(f"refused here: {call} ({error})" for call, error in found.refused.items())]
    lines += [*([""] if found.refused else []), "layers of `execsrv serve` here:"]
    lines += [f"  {words[layer.available]}  {layer.name}: {layer.meaning}" for layer in found.layers]
    lines += ["", "so it is guaranteed:", *(f"  - {words}" for words in found.guarantees)]
    lines += ["", "what can still escape:", *(f"  - {words}" for words in found.escapes)]
    lines += ["", "commands with fewer rights:"]
    lines += [f"  {words[found.policies.available]}  {found.policies.name}: {found.policies.meaning}"]
    lines += ["", "limits of all of a command together:"]
    lines += [f"  {words[limit.available]}  {limit.name}: {limit.meaning}" for limit in found.limits]
    print_text("\n".join(lines) + "\n")
    return 0
