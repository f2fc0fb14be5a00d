"""Cubes as people see them: repositories, later their pages, versions and search."""
