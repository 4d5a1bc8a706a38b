"""Starting a command with fewer rights than the server has.

A start is a table of system calls (`table`), made in the server and carried out by a tiny program between spawn and
exec (`starter`). The layers that it puts on are in `view`, `landlock` and `seccomp`, their order in `start`. The policy
is the caller's, and is resolved in `policy`. What cannot be put on as asked is refused: nothing runs with less.
"""
