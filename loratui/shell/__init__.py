"""The parts that the app is put together from: what has to do with the host, with words to the user, with themes."""
