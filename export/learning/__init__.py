"""How a student learns, stage by stage, and how a teacher does."""
