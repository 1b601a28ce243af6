"""Any number of modalities, declared in a TOML file: from anyone's shards to trained towers and retrieval."""
