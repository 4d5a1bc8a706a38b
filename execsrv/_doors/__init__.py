"""The doors: who somebody is who opens a channel, and what that one may do."""
