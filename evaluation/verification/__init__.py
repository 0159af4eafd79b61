"""Verification of a run: its versions follow from the updates that it has accepted."""
