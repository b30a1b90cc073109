"""What has to hold: each law is a class, whose docstring says it."""
