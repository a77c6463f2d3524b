"""A sign-in by hand, as a good engineer would write it for one project.

It keeps its connection, the discovery document and the keys; makes the one token request; validates
the id_token with PyJWT; and writes the rows in one transaction, encrypted. It renews a token under
the lock of its row. What the package does beyond that is not here: two tabs, workers that are
killed or wait too long, revocation, error pages, limits on replies.
"""
