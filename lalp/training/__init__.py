"""Fine-tune a student on what was selected."""
