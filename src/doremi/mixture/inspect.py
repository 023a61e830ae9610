"""What a schedule is going to draw."""
