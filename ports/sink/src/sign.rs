//! The signature of a webhook according to the Standard Webhooks specification: HMAC-SHA256 over `id.timestamp.body`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// `whsec_` and base64, or the bytes of any other text. Nothing where the base64 is none; empty without a secret.
pub(crate) fn key(secret: Option<&str>) -> Option<Vec<u8>> {
    match secret.map(|secret| (secret, secret.strip_prefix("whsec_"))) {
        None => Some(Vec::new()),
        Some((_, Some(encoded))) => STANDARD.decode(encoded).ok(),
        Some((secret, None)) => Some(secret.as_bytes().to_vec()),
    }
}

/// `v1,` and the signature in base64.
pub(crate) fn webhook(key: &[u8], id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(format!("{id}.{timestamp_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_specifications_example_verifies() {
        let key = key(Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("base64");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            webhook(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
