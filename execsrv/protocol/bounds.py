"""The bounds of what a client says: each text, list and table of a call has one, and names one of these types.

A text has so many letters and, where it is a field of a call itself, so many bytes of UTF-8.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MOST_NAME_BYTES = 256

Id = Annotated[str, Meta(max_length=MOST_NAME_BYTES)]
"""A name that a peer chooses. It is kept, and repeated in what is told."""

Name = Annotated[str, Meta(max_length=MOST_NAME_BYTES)]
"""A name of something that is known here: a header, a variable, a method."""

PathText = Annotated[str, Meta(max_length=16 * 1024)]
"""A path or a URI of one: PATH_MAX bytes, each percent-escaped, and what is in front of them."""

PathTexts = Annotated[list[PathText], Meta(max_length=4096)]

Word = Annotated[str, Meta(max_length=8 * 1024 * 1024)]
"""A word of a command line, or a variable. The kernel takes less, and its own error names the one that is too long."""

Words = Annotated[list[Word], Meta(max_length=256 * 1024)]
"""The words of a command line. The kernel bounds their bytes: this is for empty ones."""

Variables = Annotated[dict[Word, Word], Meta(max_length=64 * 1024)]

Pattern = Annotated[str, Meta(max_length=MOST_NAME_BYTES)]
Patterns = Annotated[list[Pattern], Meta(max_length=1000)]
"""Globs that names of variables are compared with, each with each."""

Whole = Annotated[int, Meta(ge=0, le=2**53)]
"""A number that JSON carries exactly, whoever reads it."""

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A place in a file, or a size: what the system calls take."""
