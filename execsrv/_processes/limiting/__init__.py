"""Limits of one command: those of each process, which it is born with, and the control groups of all of it.

Nothing here is imported before the first start that has limits.
"""
