"""Small base models trained on this machine, for places where no hub can be reached."""
