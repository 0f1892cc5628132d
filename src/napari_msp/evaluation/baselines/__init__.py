"""What a network has to beat: methods that learn without one, and the registry that lists them."""
