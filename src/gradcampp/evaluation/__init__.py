"""From photographs to a run: maps, scores of explanation maps, and records on disk."""
