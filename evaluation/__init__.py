"""Evaluation of versions: assess, compare, report, export, and live samples during a run."""
