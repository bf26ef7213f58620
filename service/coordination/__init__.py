"""Values that operators set and every replica goes by.

The forced mode, the model in service and the policies, with the audit and the clock that they share.
"""
