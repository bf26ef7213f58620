"""GPT4Rec in torch: embeddings, context norm, code decoder, dense head."""
