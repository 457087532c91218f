"""The claims of the paper, and ours, each with a verdict that code computes."""
