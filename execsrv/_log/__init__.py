"""The output of a session, on its way to whoever reads it.

`log` numbers it, and bounds what is kept for a second look; `retained` holds that. What the peer has not read yet waits
in `attached_reader`, which bounds it: beyond its window nothing more is read of the command. A `viewer` only follows.
"""
