"""Benchmarks: `engine` measures the graphs alone, `report` shows what was measured, `machine` says where."""
