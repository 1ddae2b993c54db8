//! Keeps functions, accounts, jobs, logs and metrics durably; the only crate with SQL.
