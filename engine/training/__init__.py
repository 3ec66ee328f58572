"""The training loop and its parts: objectives, chance, batches, optimizer, state, prior, validation."""
