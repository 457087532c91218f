"""The derivation of Grad-CAM++ as algebra: in SymPy, on numbers, and what can be proved beyond it."""
