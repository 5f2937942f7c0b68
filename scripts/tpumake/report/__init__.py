"""The report of a build: facts from what stages left behind, and a page made of them."""
