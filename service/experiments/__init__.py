"""Which arm of which experiment a user is in, what the arms earned, and whether the difference is more than chance."""
