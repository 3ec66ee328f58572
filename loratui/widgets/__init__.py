"""The parts that screens are built of: each is given data by calls and speaks by messages, and knows
nothing of the app."""
