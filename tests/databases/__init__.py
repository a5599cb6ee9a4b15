"""PyTorch's own collections of modules and a zoo of `transformers`: what is captured, what is equal, what survives."""
