"""Data behind the screens: live and recorded runs, figures derived from them, sent commands."""
