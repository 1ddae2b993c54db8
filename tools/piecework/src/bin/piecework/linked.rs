//! What a static executable with glibc lacks, see decision 035. Not compiled into any other.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};

/// Finds the functions that libraries look for at run time: in a static executable glibc's own `dlsym` finds none.
///
/// The one that is looked for is `getrandom`, by the crate of that name. Without it, the crate opens `/dev/random`, which does
/// not exist behind a sandbox's walls.
///
/// # Safety
/// `name` is a NUL-terminated text, as for the function of the C library, whose weak symbol this replaces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlsym(_handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller vouches for it.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"getrandom" => libc::getrandom as *mut c_void,
        _ => std::ptr::null_mut(),
    }
}
