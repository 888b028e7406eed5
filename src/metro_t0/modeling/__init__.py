"""The networks, native to transformers; this folder imports only torch, transformers and itself."""
