//! The HTTP contract: bodies, error codes and the typed client.
