"""Who may call what: API keys, tokens, the files they come from, and how often each key may call."""
