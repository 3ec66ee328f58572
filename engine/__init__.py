"""The program that does the work: adapters, training, sampling, data and files. It knows nothing of the terminal."""

__version__ = "0.1.0"
