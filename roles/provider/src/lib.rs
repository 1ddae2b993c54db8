//! Verifies tickets, runs sandboxes, keeps the pools warm and signs receipts.
