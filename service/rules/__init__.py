"""Rules of a list and its diversity: what may stand where beside what, whatever ranked the items."""
