"""Who: organisations, projects, API keys."""
