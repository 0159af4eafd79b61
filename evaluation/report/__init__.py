"""Reports: tables, plots and files about a run or one version of it."""
