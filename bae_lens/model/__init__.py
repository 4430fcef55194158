"""What a BAE is."""
