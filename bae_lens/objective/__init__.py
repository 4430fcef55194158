"""What a BAE is trained for: reconstruction, entropy over the minibatch, covariance."""
