"""Tuning a CLIP's image tower to a stronger encoder's kernel, measured at every checkpoint."""
