//! How many files, sockets and pipes this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the usual 1,024 is for programs that use select(2). Connections, each sandbox and
/// each open file of the ledger and the store take some; connections have a bounded part of them (`piecework_serve`).
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raising the limit of open files failed; fewer connections are served");
    }
}
