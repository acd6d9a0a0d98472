"""The workers: plain classes with their collaborators passed in; deploy.py puts them on Ray."""
