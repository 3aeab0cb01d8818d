"""Real frames against simulated ones: what each step of the simulation adds, and data sets to measure it on."""
