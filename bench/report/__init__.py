"""Reads rows: tables, plots, pages, comparisons."""
