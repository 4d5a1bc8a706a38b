"""The runner: a helper in a context that a server cannot enter, which starts commands there. See docs/runner.md."""
