"""Commands as the operating system knows them: starting them, their terminals, and ending them.

Nothing here knows messages or sessions. `command` settles what is to run, `spawn` runs it, `tree` watches and ends it.
"""
