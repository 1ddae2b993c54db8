//! Names of hosts and users in an executable that is linked statically with glibc.

/// Makes glibc look up hosts by `/etc/hosts` and DNS, and users by `/etc/passwd`, whatever `/etc/nsswitch.conf` says.
///
/// That file names shared libraries. A static executable would load them together with the C library of the machine that it
/// runs on, which is another one than its own: at best the lookup fails, at worst the process does. `files` and `dns` are part
/// of glibc since 2.34. Call it first in `main`, while there is one thread. Does nothing to other C libraries.
#[allow(unsafe_code)]
pub fn look_up_without_plugins() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, line: *const libc::c_char) -> libc::c_int;
        }
        for (database, line) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
            // SAFETY: both texts are NUL-terminated and live for ever; glibc copies what it needs.
            unsafe { __nss_configure_lookup(database.as_ptr(), line.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    #[test]
    fn names_are_found_without_plugins() {
        super::look_up_without_plugins();
        let found = ("localhost", 80).to_socket_addrs().expect("in /etc/hosts").count();
        assert!(found > 0);
    }
}
