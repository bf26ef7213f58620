"""Measurements of model quality: one module a part, figures into `loadtests/results/quality.json`."""
