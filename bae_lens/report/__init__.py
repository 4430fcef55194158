"""What people look at: a self-contained page for each BAE or other SAE, and the paper's figures from one's own runs."""
