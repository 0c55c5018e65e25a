"""Step world, version 2: problems whose operands were set several moves back."""
