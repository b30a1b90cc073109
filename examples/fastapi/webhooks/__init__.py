"""A web service that tells a subscriber what happened."""
