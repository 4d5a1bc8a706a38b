"""The doors: who somebody is who opens a channel, what that one may do, and what the operator sees of it all."""
