"""The scorers and signals of an artefact: tables that score items without the network."""
