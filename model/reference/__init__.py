"""Slow, obvious versions of the fast paths; tests and the parity gate of the export compare with them."""
