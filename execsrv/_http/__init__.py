"""HTTP requests that a peer makes from this machine.

`channel` opens the HTTP side of a channel, `request` decides what is sent, `client` sends it, and `relay` counts
requests and streams bodies to the peer.
"""
