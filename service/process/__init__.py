"""The process: its state, its end, its memory, its output, and work behind the event loop."""
