"""Puts the first items of a list into the order that is expected to earn most, as an artefact's order model says."""
