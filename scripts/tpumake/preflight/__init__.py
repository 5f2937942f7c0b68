"""What can be known before the first tool starts: small checks, each giving findings."""
