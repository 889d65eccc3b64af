"""Plotly figures of arrays: pure functions."""
