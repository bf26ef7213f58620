"""The ONNX graphs of an artefact: their inputs, outputs and states, and the tables that they read."""
