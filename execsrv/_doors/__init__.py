"""The doors: who somebody is who opens a channel, what that one may do, how many may come, and what operators see.

`doorkeeper` decides who comes in. It asks `peers` for the user at the other end, `credentials` for a token, and
`certificates`. `newcomers` only bounds those who have not said yet who they are, and `exposure` where a server may
listen at all. `audit`, `health`, `metrics` and `spans` are for operators, who all hear of it from `journal`.
"""
