"""How much may be held: budgets that are taken from and given back to, a server's with a principal's below it.

`budget` is one of them, of bytes or of things, and `allowance` all that a server has. `rate` bounds how often something
is done, `pace` how many bytes a second.
"""
