"""Independent units of work, done in this process, by a pool of processes, or on Ray. Knows no traces."""
