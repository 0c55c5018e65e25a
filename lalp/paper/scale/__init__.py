"""The paper's own scale: every stage, its cost, its dry run and its tables."""
