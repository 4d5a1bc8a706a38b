"""The way to trio from plain threads and from asyncio: one thread that runs it, and what calls into that thread.

`blocking` and `awaiting` wait in the world of the caller, `calls` is the work that is done for them, and `thread` runs
trio: its `post` is where a call crosses.
"""
