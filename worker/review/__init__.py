"""Review of a run's plan by the people at a site, before anything is trained there."""
