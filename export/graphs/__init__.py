"""Writers of the ONNX graphs, node by node: encoders, decoder, samplers and explainer."""
