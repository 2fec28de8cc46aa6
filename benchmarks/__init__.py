"""Measurements: a folder a question, with the code that asks it and the result that was measured."""
