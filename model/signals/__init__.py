"""Fits the signals of the ranker on the training part of a split.

One module for each signal. Each holds its constants and one function `fit`, and `registry.py` lists them all.
"""
