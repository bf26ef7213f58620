"""The model as a pair of functions, encode and decode, over onnxruntime; the scorers of the fallback rungs."""
