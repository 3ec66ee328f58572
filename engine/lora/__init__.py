"""Low-rank adapters: layers, injection, and the flat buffer that training works on. Knows no trainer and no file."""
