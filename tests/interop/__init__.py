"""execsrv and the stock Codex CLI, the client of this protocol that most people run. `nox -s interop` runs it."""
