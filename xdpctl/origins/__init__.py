"""Where an object comes from, and who answers for it: registries, signatures, the policy."""
