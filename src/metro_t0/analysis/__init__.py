"""What is inside a trained model: which units fire, which parameters matter."""
