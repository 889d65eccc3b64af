"""Benchmarks: each figure against its peer in the same run, as a ratio, because machines differ and are shared."""
