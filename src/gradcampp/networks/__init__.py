"""Networks: split at a layer, found by name, with the names of their classes."""
