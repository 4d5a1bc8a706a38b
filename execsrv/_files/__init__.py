"""The files of this machine for one peer: `files.py` is the way in, and everything else here runs in its threads.

`roots.py` alone turns paths into places; `contents.py`, `listings.py` and `changes.py` work on places and never on
paths, so that nothing gets past the roots. `watch.py` waits for what is missing.
"""
