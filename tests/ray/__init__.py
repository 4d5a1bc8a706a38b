"""Servers on a real Ray cluster of three nodes, on this machine: `nox -s ray`."""
