"""Tests that try to break a lake."""
