"""Numbers to claims: statistics, the verdict, and the schema of results. Pure: no model, no torch."""
