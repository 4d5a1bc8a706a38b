"""The doors of the server: who may come in and how many, and what its operator sees of it."""
