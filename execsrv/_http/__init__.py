"""HTTP requests that a peer makes from this machine.

`request` decides what is sent, `client` sends it, and `relay` counts requests and streams bodies to the peer.
"""
