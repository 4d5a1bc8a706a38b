"""Starting a command with fewer rights than the server has.

A start is a table of system calls (`table`), made in the server and carried out by a tiny program between spawn and
exec (`starter`). Its rows are made in `layers`, in their order, of `view`, `landlock` and `seccomp`. The policy is the
caller's, and is resolved in `policy`. What cannot be put on as asked is refused: nothing runs with less.
"""
