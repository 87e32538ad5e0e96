"""Paglets of the tests, in modules that their processes can import."""
