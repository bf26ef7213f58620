"""Takes models from their folder into service: verify, open, canary, warm up, switch, roll back."""
