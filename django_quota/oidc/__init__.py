"""Requests to Quota: discovery, OAuth endpoints, API, and validation of the id_token."""
