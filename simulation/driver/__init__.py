"""Driver of the core in virtual time: a heap of timed events instead of a broker and a clock."""
