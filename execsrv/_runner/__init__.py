"""The runner: a helper in a context that a server cannot enter, which starts commands there (docs/runner.md).

`serve` is its life. `one` speaks version 1, whose messages are in `founding`, and `many` version 2, whose are in
`messages`. The server's side of the channel is `link`, of one command `remote`, and of its processes `tree`.
"""
