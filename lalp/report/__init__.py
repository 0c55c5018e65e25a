"""What one's own pool says under a student, as a notebook and as a page."""
