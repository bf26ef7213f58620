"""The artefact's format and its reader.

Code that writes artefacts imports this package; it needs neither torch nor onnxruntime.
"""
