"""What is learned from outcomes beside the model."""
