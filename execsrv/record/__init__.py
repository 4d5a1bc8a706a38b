"""Recordings of what a process printed: asciicast v3 files, and pages that play them.

`client.start(argv, record="demo.cast")` and `client.record(process, "demo.cast")` make the file; `to_html` makes one
page of it, which needs nothing else. Players of asciicast v3, such as `asciinema play`, read the file too.
"""

from execsrv.record.asciicast import Recording
from execsrv.record.page import to_html

__all__ = ["Recording", "to_html"]
