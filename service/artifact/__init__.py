"""The artefact's format, and its reader.

Whoever writes artefacts imports this room; torch and onnxruntime stay out of it.
"""
