"""The service beside its peers under the same load."""
