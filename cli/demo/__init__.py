"""`fccl demo`: a whole federation in one process, and its terminal."""
