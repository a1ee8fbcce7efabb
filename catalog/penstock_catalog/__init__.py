"""What is offered: model cards, artifacts, the shelf. Knows neither tenants nor money moved."""
