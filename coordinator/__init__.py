"""Owns the versions: schedules tasks, admits and weighs updates, aggregates, commits."""
