"""Faults of the machine, of the network and of peers, tried on a real daemon: `nox -s faults`."""
