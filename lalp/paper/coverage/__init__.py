"""Notebook 01: are steps covered better than whole responses (Fig. 2)?"""
