"""The criteria of docs/performance.md, one module each."""
