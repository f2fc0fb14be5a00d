"""What operators see of a registry, and nothing that says who did what with which cube.

requests     of each request: an id, one log line, figures
metrics      the figures, for Prometheus
operations   health, readiness and features
"""
