"""Penstock: a per-token model API platform on your own machines."""
