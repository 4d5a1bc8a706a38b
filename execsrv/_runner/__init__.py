"""The runner: a helper in a context that a server cannot enter, which starts commands there (docs/runner.md).

`serve` is its life. It speaks by `version_1` or `version_2`, each with its messages in a module beside it. The server's
side of the channel is `link`, of one command `remote`, and of its processes `tree`.
"""
