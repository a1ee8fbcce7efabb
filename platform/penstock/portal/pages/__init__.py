"""One file per page or small group of pages: its handlers, and what they ask for."""
