"""Hidden states from events: the streaming encoder, the encoder of whole histories, the explainer."""
