"""Notebook 03: does a response make its own end likely (Fig. 5)?"""
