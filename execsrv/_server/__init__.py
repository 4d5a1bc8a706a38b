"""The service: connections, their sessions, the conversation with a peer, and the methods it may call."""
