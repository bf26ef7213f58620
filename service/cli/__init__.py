"""The command `gpt4rec`, and its sub-commands that concern the service: serve, ops, keys."""
