"""Server-rendered pages: browse the catalog, try a model, watch the money."""
