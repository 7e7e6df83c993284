"""Tidegate: the package that all functions share."""

#: As in `pyproject.toml`; a test keeps both equal.
VERSION = "0.1.0"
