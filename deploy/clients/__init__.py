"""Clients of the HTTP interface, for Python and TypeScript. They import nothing of this repository."""
