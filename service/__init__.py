"""The running service: reads an artefact and Redis, answers over HTTP.

It never imports torch or another top-level package.
"""
