"""The life of one request: conduct and relay."""
