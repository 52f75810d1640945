"""Processes that serve: one or several behind a port, from the socket to the exit code."""
