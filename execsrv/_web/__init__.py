"""The page of a server: what it says to a browser that asks for it. The files are beside this."""
