"""The OpenAPI document: what the signatures of the routes do not give."""
