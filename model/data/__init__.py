"""Data sets: importing event logs (`importing`, `readers`), checking them, storing them (`dataset`), splitting them."""
