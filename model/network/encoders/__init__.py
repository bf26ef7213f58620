"""Encoders, which turn a history into hidden states: GPT4Rec's streaming backbone and the ones it is compared with.

To add one: write a module here with a subclass of `base.Encoder`, add its name to `registry.ENCODERS`, and train with
`--set encoder=NAME`. tests/unit/model/network/test_encoders.py tests every encoder of the registry. `gpt4rec export`
needs an ONNX writer as well: export/graphs/history_encoder.py.
"""
