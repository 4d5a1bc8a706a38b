"""The wire: the contract of a channel (`channel`), JSON and framing, the handshake, and a module a transport.

Nothing here knows a method.
"""
