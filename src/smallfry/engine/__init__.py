"""Asking a model: constraints, and the engines that run it."""
