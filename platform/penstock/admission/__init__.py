"""May it, now: limits on what one request may ask, and room on the engines."""
