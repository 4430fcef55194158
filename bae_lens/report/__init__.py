"""What the earlier stages found, to look at: one self-contained HTML file a BAE, or any other SAELens SAE."""
