"""The commands `gpt4rec data`, `train` and `evaluate`."""
