"""Small base models made on the spot, where no hub can be reached."""
