"""What login files make of a shell, kept for the next shells so that those do not run them again."""
