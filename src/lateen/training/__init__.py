"""Training the alignment heads between two frozen encoders on their stored features."""
