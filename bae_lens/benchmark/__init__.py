"""Benchmarks with a yardstick of their own, each a command: many cells, trained one by one, a table and pictures."""
