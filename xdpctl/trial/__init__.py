"""What a chain would do with packets."""
