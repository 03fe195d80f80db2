"""Code that goes into exported folders, for transformers to run where lateen is not installed.

The modules here import torch and transformers and nothing of lateen. Their names stand in the
``auto_map`` of folders that are with people, so that they stay as they are.
"""
