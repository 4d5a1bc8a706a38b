"""The output of a session, on its way to whoever reads it.

`log` numbers it. `retained` keeps it, up to a bound. `attached_reader` knows how far the peer has taken it, and with
that whether the command may print more. A `viewer` only follows.
"""
