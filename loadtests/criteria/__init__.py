"""The criteria of the serving engine, each measured by one command: `python -m loadtests.criteria --help`."""
