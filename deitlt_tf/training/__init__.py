"""Trains student and teacher, from the last checkpoint to the last step. May import every other room of the library."""
