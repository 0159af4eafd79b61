"""Site of a worker: its identity, how it joins, its enrolments, and the run that it serves."""
