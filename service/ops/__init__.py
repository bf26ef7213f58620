"""What operators see: snapshots for the console, recent traffic, and the figures of the other workers."""
