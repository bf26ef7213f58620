"""Slow and obvious versions of the fast paths, which tests and the parity gate compare with."""
