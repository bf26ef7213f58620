"""What was shown to whom, and how likely it was: written to streams behind the answers."""
