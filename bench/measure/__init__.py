"""Runs and measures: engines, models, cases, rows."""
