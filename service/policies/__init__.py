"""Decoding policies: the segments of users, the file that defines them, and the policies that operators set."""
