"""The output of a session: `log` numbers and retains it, `head_tail` keeps the ends of a stream."""
