"""A trained run becomes an artefact: graphs, catalogue, scorers, and the gate that compares them with torch."""
