"""Docker's API as text and as a client: which call it is, what its bodies say, our own questions."""
