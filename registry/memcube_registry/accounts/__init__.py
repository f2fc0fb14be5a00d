"""Who is there: people, organisations, their tokens, and who a request comes from."""
