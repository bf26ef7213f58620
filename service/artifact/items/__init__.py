"""The items of an artefact: what is shown of them, and what filters test."""
