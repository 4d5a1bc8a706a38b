"""Commands as the operating system knows them: starting them, their terminals, and ending them.

Nothing here knows messages or the state of a session. `command` settles what is to run, `spawn` starts it, `leader`
watches its first process, and `supervisor` holds them together. `tree` kills all that descends from it, also what has
escaped: `subreaper`, `membership` and `census` only find that. `guardian` kills when the server itself is dead.
"""
