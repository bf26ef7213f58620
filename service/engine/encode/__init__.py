"""From events to hidden states: the streaming encoder, the encoder of whole histories, the explainer."""
