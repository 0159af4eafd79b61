"""`fccl demo`: a whole federation on this machine, with a screen on a terminal."""
