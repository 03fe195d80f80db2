"""Benchmark programs of others that run a model of ours: one file each, asked for in Python.

Nothing is written for them, so that they are no tools of ``lateen export``, and nothing of lateen
needs them.
"""
