"""Models from folder to service: verify, open, canary, warm up, switch, roll back."""
