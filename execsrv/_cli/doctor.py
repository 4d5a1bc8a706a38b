"""`execsrv doctor`: the means of this machine to keep hold of processes, for people or as JSON."""

from __future__ import annotations

import msgspec

from execsrv._processes.survey import survey


def report(as_json: bool) -> str:
    """Return the survey of this machine as text."""
    found = survey()
    if as_json:
        return msgspec.json.format(msgspec.json.encode(found)).decode()
    kernel = f"kernel: Linux {found.kernel}; {found.minimum_kernel} or later is needed"
    lines = [kernel, "", *(f"refused here: {call} ({error})" for call, error in found.refused.items())]
    lines += [*([""] if found.refused else []), "layers of `execsrv serve` here:"]
    lines += [f"  {'yes' if layer.available else 'no ':3}  {layer.name}: {layer.meaning}" for layer in found.layers]
    lines += ["", "so it is guaranteed:", *(f"  - {words}" for words in found.guarantees)]
    lines += ["", "what can still escape:", *(f"  - {words}" for words in found.escapes)]
    return "\n".join(lines)
