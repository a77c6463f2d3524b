"""The views, and what they share with the middleware: requests, pages, responses to errors."""
