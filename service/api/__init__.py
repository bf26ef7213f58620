"""HTTP on the outside.

The request gate, connections, problem documents, OpenAPI, and the parts of the service as routes reach them.
"""
