"""The loaded model as a drawing whose parts can be chosen."""
