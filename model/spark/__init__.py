"""Imports and counts logs on Spark, with the integers and the files of one machine."""
