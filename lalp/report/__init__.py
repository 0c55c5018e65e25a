"""Results for your own pool under a student, as a notebook and as a page."""
