"""A shop of one page and one small backend, for docs/integrate.md."""
