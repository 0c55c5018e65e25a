"""The replication: what only the notebooks and the paper's own scale need."""
