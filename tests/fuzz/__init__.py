"""Inputs that nobody foresaw, for everything that reads what others write."""
