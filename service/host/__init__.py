"""What the machine gives to this process: cores, and whose turn it is on them."""
