"""Generated scenes with known truth: ten kinds of things, drawn on varied ground, with exact masks."""
