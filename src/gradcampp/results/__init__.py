"""What a run says: tables, figures, and the pages that hold them."""
