"""The settings: every variable of the environment that the service reads, and the space that they are of."""
