"""Turns a trained run into an artefact: graphs, catalogue, scorers, and the gate that compares them with torch."""
