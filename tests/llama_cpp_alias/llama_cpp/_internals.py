"""Imported by the tests; those that use it are left out."""
