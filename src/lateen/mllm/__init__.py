"""Multimodal language models whose eyes are a lateen or CLIP vision tower."""
