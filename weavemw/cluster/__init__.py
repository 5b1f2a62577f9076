"""Many hosts, one network: who the others are, what they have, and how packets reach them."""
