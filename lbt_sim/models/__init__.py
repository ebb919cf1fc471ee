"""Language models: one small protocol (`base`), one module per engine, a registry that imports them late."""
