"""Spread work over many machines with Ray (the extra ``cluster``)."""
