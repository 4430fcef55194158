"""How a BAE is trained: recipes and the trainer."""
