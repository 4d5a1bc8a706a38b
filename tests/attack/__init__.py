"""Attacks on the server, each as a peer or another user would try it."""
