"""The command line: `app` says what each command takes, a module a command does it."""
