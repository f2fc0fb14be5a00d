"""What operators see of a registry, and nothing that says who did what with which cube.

requests     of each request: an id, one log line, figures
metrics      the figures, for Prometheus
probes       what is looked at for readiness and figures, however many ask
operations   health, readiness and features
"""
