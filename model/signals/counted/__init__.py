"""Counts behind item-CF and transitions of logs larger than memory: in parts of users, to the same integers."""
