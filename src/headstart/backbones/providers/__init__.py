"""Where backbones come from: one file a provider."""
