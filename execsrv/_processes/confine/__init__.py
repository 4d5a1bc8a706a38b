"""Starting a command with fewer rights than the server has.

A start is a list of system calls. `layers` lists them in their order, with those of `view`, `landlock` and `seccomp`;
`table` packs them, and a tiny program carries them out between spawn and exec (`starter`). The policy is the caller's,
and is resolved in `policy`. What cannot be put on as asked is refused: nothing runs with less.
"""
