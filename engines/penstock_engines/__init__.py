"""Who does the work: engines, their launch, client and health. Knows nothing of tenants or money."""
