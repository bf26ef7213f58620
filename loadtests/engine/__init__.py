"""The engine alone: decode and encode time, scaling with the catalogue, admission."""
