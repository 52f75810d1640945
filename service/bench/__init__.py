"""Benchmarks: `engine` measures the graphs alone, `http` services under load,
`pair` a student beside its teacher in both.

The reports show what was measured, `machine` says where. What does the measured work in a process of its own: `worker`.
"""
