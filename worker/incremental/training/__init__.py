"""Training on live input, and the gate that decides what is kept."""
