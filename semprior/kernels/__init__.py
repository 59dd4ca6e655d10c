"""Layers in C++, compiled on the machine that runs them, each with a plain form in torch that computes the same.

Imports `errors`, `io` and `runtime`.
"""
