"""Adapters for frameworks of others, each in a module that its framework imports, and nobody else."""
