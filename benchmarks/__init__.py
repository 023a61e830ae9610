"""Measurements that back the claims of the README. Not part of the package."""
