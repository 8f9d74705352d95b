"""Training: recipes, Lightning modules, callbacks and the run that joins them."""
