"""What virtual clients compute: real training, or an analytic objective."""
