"""The ONNX graphs, written node by node: encoders, decoder, samplers, explainer."""
