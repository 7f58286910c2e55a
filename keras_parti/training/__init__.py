"""Training by `model.fit`: what the command, the examples and users share."""
