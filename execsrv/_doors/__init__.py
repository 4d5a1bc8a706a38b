"""The doors: who somebody is who opens a channel, what that one may do, how many may come, and what operators see."""
