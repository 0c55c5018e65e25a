"""Fine-tune a student on the selected responses."""
