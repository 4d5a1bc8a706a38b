"""How messages travel: the contract (`channel`), JSON and framing, the handshake, and a module a transport.

Nothing here knows a method.
"""
