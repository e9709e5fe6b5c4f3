"""The product beside its peers: the same plays, broker and database, one contender after the other."""
