"""The report of a workspace: facts are collected, then put with the page's template into one HTML file."""
