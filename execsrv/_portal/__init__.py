"""The way to trio from plain threads and from asyncio: one thread that runs it, and what calls into that thread."""
