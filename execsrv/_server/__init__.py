"""The service: connections, their sessions, the conversation with a peer, and the methods it may call.

A channel comes in by `listeners` or `single_connection`, and `entrance` asks the doors who it is. `conversation` reads
its messages, `dispatch` takes each request to its handler in `methods`, and `outbox` sends what there is to say.
`connection` owns `sessions`; `starting` and `session` are one command, before and after its start. Its input waits in
`stdin`. Its output goes by `pump` into a log, in `execsrv._log`, which holds it until `feed` hands it to the outbox.
`ending` decides with which reason it ends. What others see of a connection is in `sharing`, `visits` and `view`.
"""
