"""The network: encoder, decoder, bin head, checkpoints."""
