"""Tests of the release stages."""
