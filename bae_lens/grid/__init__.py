"""Many BAEs as one job: every layer, position, seed and setting of a grid, on one machine or many."""
