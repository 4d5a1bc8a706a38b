"""HTTP requests that a peer makes from this machine: `request` prepares, `client` sends, `relay` streams the body."""
