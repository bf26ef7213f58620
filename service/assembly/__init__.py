"""The composition root: opens the parts of the process and of its space, and connects them."""
