"""Commands as the operating system knows them: starting them, their terminals, and ending them.

Nothing here knows messages or the state of a session. `command` settles what is to run, `spawn` starts it, `leader`
watches its first process, `tree` ends all that descends from it, and `supervisor` holds them together.
"""
