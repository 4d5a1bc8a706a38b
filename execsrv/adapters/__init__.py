"""Adapters for engines that place programs on machines, each in a module that imports its engine, and nobody else."""
