"""Rows of texts with and without labels: read from files and from the hub, cut, split, and marked."""
