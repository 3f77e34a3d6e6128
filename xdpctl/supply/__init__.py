"""Where an object comes from, and who has signed it: registries, signatures, the policy."""
