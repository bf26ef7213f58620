"""How good the lists are: ranking, list qualities, segments, variants, conditions, cold items."""
