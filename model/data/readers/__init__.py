"""One module for each format that `gpt4rec data import` reads."""
