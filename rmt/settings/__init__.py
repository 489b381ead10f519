"""What is known of the data: frozen settings, one a model, and the losses."""
