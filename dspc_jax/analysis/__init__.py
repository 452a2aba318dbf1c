"""What circuits are and how they differ: functions of one or two circuits."""
