"""Notebook 07: the toy theory (Appendix A)."""
