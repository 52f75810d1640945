"""Objectives as pure functions of what a student gives and what it is held against. They never see a network."""
