"""A run in tables, figures, and the pages that hold them."""
