"""The doors: who somebody is who opens a channel, what that one may do, and how many there may be."""
