"""Who changed what: written by the database with each change, read here."""
