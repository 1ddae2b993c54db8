//! Passwords: Argon2id in PHC form.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};

use crate::StoreFailure;

/// Hashes a password under a fresh salt. Takes tens of milliseconds of CPU and 19 MiB: call it off the async threads.
pub fn hash_password(password: &str) -> Result<String, StoreFailure> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|_| StoreFailure::PasswordHash)
}

/// Whether the password fits the hash; `false` also for a hash that cannot be read. As slow as [`hash_password`].
pub fn verify_password(password: &str, password_hash: &str) -> bool {
    PasswordHash::new(password_hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_fits_its_hash() {
        let hash = hash_password("correct horse").expect("hashed");
        assert!(hash.starts_with("$argon2id$"));
        assert!(verify_password("correct horse", &hash));
        assert!(!verify_password("correct horsf", &hash));
        assert!(!verify_password("correct horse", "no hash"));
        assert_ne!(
            hash,
            hash_password("correct horse").expect("hashed"),
            "each has its own salt"
        );
    }
}
