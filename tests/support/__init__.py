"""What several kinds of test share: servers run as processes, a wire-level HTTP client, sample content."""
