//! What lies in the folder: the certificate with its key in one file, so that they always belong together; what it was obtained
//! for; the account.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use instant_acme::AccountCredentials;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Wanted,
    validity::{Validity, validity},
};

/// Why there is no certificate to start with.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot make a certificate for {0}")]
    Make(String, #[source] rcgen::Error),
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
}

/// What the certificate was obtained for. Without it, the certificate is a placeholder.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Obtained {
    domains: Vec<String>,
    directory: String,
}

impl Obtained {
    fn of(wanted: &Wanted) -> Self {
        Self {
            domains: wanted.domains.clone(),
            directory: wanted.directory.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct KeptAccount {
    pub(crate) directory: String,
    pub(crate) contacts: Vec<String>,
    pub(crate) credentials: AccountCredentials,
}

/// The certificate's chain and its key, in PEM.
pub fn certificate_file(folder: &Path) -> PathBuf {
    folder.join("certificate.pem")
}

fn obtained_file(folder: &Path) -> PathBuf {
    folder.join("obtained.json")
}

fn account_file(folder: &Path) -> PathBuf {
    folder.join("account.json")
}

/// Sees that there is a certificate at all: a server can begin with one that it has signed itself, which no client trusts.
pub fn prepare(wanted: &Wanted, served_by: impl Fn(&Path) -> Result<(), String>) -> Result<(), KeptError> {
    let file = certificate_file(&wanted.folder);
    if file.exists() {
        match served_by(&file) {
            Ok(()) => return Ok(()),
            Err(error) => tracing::warn!(error, "the kept certificate cannot be used; another one is obtained"),
        }
    }
    let failed = |error| KeptError::Make(wanted.domains.join(", "), error);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = CertificateParams::new(wanted.domains.clone())
        .and_then(|wanted| wanted.self_signed(&key))
        .map_err(failed)?;
    forget(&obtained_file(&wanted.folder)).map_err(|error| KeptError::Write(file.clone(), error))?;
    let text = format!("{}{}", key.serialize_pem(), certificate.pem());
    write(&file, &text).map_err(|error| KeptError::Write(file, error))
}

/// How long the certificate needs no successor yet; none if it is due now.
pub(crate) fn rest(wanted: &Wanted, now: SystemTime) -> Option<Duration> {
    let obtained: Obtained = read(&obtained_file(&wanted.folder))?;
    if obtained != Obtained::of(wanted) {
        return None;
    }
    let rest = held(&certificate_file(&wanted.folder))?
        .renewed_at()
        .duration_since(now)
        .ok()?;
    (!rest.is_zero()).then_some(rest)
}

/// The times of the first certificate in a file.
fn held(file: &Path) -> Option<Validity> {
    validity(&CertificateDer::from_pem_file(file).ok()?)
}

/// Puts a certificate in the place of the one before, if `try_out` takes it. Returns until when it is good.
pub(crate) fn put(
    wanted: &Wanted,
    (key, chain): (&str, &str),
    try_out: impl Fn(&Path) -> Result<(), String>,
) -> Result<SystemTime, String> {
    let said = |error: io::Error| error.to_string();
    let new = wanted.folder.join("certificate.new");
    write(&new, &format!("{key}{chain}")).map_err(said)?;
    try_out(&new)?;
    let times = held(&new).ok_or("its times cannot be read")?;
    if times.until <= SystemTime::now() {
        return Err("it has expired already; is this machine's clock right?".to_owned());
    }
    fs::rename(&new, certificate_file(&wanted.folder)).map_err(said)?;
    let obtained = serde_json::to_string(&Obtained::of(wanted)).map_err(|error| error.to_string())?;
    write(&obtained_file(&wanted.folder), &obtained).map_err(said)?;
    Ok(times.until)
}

/// The account at this directory, if there is one.
pub(crate) fn account(wanted: &Wanted) -> Option<KeptAccount> {
    let kept: KeptAccount = read(&account_file(&wanted.folder))?;
    (kept.directory == wanted.directory).then_some(kept)
}

pub(crate) fn put_account(wanted: &Wanted, account: &KeptAccount) -> Result<(), String> {
    let text = serde_json::to_string(account).map_err(|error| error.to_string())?;
    write(&account_file(&wanted.folder), &text).map_err(|error| error.to_string())
}

pub(crate) fn forget_account(wanted: &Wanted) -> io::Result<()> {
    forget(&account_file(&wanted.folder))
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn forget(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whole or not at all, readable by its owner alone: temporary files are.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn wanted(folder: &Path) -> Wanted {
        Wanted {
            domains: vec!["a.example".to_owned()],
            directory: "https://ca.example/directory".to_owned(),
            contacts: Vec::new(),
            folder: folder.to_owned(),
        }
    }

    fn pair(days: i64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut wanted = CertificateParams::new(["a.example".to_owned()]).expect("a name");
        let now = wanted.not_before.max(SystemTime::now().into());
        wanted.not_before = now;
        wanted.not_after = now + Duration::from_secs(86_400) * u32::try_from(days).expect("few");
        (key.serialize_pem(), wanted.self_signed(&key).expect("signed").pem())
    }

    #[test]
    fn a_certificate_is_due_first_at_two_thirds_and_for_other_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let wanted = wanted(folder.path());
        let now = SystemTime::now();
        prepare(&wanted, |_| Ok(())).expect("made");
        assert_eq!(rest(&wanted, now), None, "a placeholder is due");
        let (key, chain) = pair(90);
        put(&wanted, (&key, &chain), |_| Ok(())).expect("put");
        let day = Duration::from_secs(86_400);
        let left = rest(&wanted, now).expect("not due");
        assert!(left > day * 59 && left < day * 61, "{left:?}");
        assert_eq!(rest(&wanted, now + day * 61), None);
        let more = Wanted {
            domains: vec!["a.example".to_owned(), "b.example".to_owned()],
            ..wanted.clone()
        };
        assert_eq!(rest(&more, now), None);
        // Kept over a restart; one that cannot be used is not.
        prepare(&wanted, |_| Ok(())).expect("kept");
        assert!(rest(&wanted, now).is_some());
        prepare(&wanted, |_| Err("no good".to_owned())).expect("made anew");
        assert_eq!(rest(&wanted, now), None);
    }

    #[test]
    fn what_the_server_cannot_use_does_not_replace_what_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let wanted = wanted(folder.path());
        let (key, chain) = pair(90);
        put(&wanted, (&key, &chain), |_| Ok(())).expect("put");
        let file = certificate_file(folder.path());
        let before = fs::read(&file).expect("there");
        assert!(put(&wanted, (&key, "nothing"), |_| Ok(())).is_err());
        let (_, other) = pair(90);
        let refused = put(&wanted, (&key, &other), |_| Err("not a pair".to_owned()));
        assert_eq!(refused, Err("not a pair".to_owned()));
        assert_eq!(fs::read(&file).expect("there"), before);
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
