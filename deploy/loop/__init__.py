"""What closes the loop: the promotion gate, and the commands that carry traffic to the next model."""
