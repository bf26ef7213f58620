"""Complete examples of what uses the clients."""
