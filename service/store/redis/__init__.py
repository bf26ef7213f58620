"""Redis: connections, clusters, the embedded server, and why it cannot be used."""
