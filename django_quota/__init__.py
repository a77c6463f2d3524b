"""Sign in with Quota for Django: a verified identity, and a wallet that pays for AI calls."""
