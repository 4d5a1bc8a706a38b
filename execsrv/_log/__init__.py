"""The output of a session: `log` numbers and retains it, `reader` knows how far it was taken."""
