"""How much may be held: budgets that are taken from and given back to, a server's with a principal's below it."""
