//! The code of a version as its developer sent it.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use piecework_api::{
    functions::CodeView,
    server::{HttpError, aside},
};
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{AccountId, Code, Language, Rejection, typescript};
use piecework_serve::{Crowd, Member};
use piecework_store::{Site, Version};

use crate::{
    Answer,
    failure::{blobs, refuse, rejected},
    functions::{Functions, pages},
};

/// Codes that wait, are read or are on their way at one time: one is up to 43 MiB of JSON, for as long as its reader takes.
const AT_ONCE: usize = 8;
const OF_AN_ACCOUNT: usize = 1;

/// Who reads the code of a version now.
pub(crate) struct Codes(Crowd<AccountId>);

impl Default for Codes {
    fn default() -> Self {
        Self(Crowd::new(AT_ONCE, OF_AN_ACCOUNT))
    }
}

impl Codes {
    /// Refuses with `server.busy`.
    fn enter(&self, account: AccountId) -> Answer<Member<AccountId>> {
        let busy = || {
            refuse(
                Code::ServerBusy,
                "too much code is being read at once; retry in a second",
            )
        };
        self.0.enter(account).map_or_else(busy, Ok)
    }
}

/// JSON that keeps its reader's place until its last byte has left.
struct Leaving {
    json: Vec<u8>,
    _place: Member<AccountId>,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// The JSON of a version's [`CodeView`]: its files without resolved packages, and without what the deploy has put beside them. A
/// `package.json` that was made to say `"type": "module"` says so. Refuses with `server.busy`.
pub(crate) async fn view(functions: Arc<Functions>, account: AccountId, version: Version) -> Answer<Bytes> {
    let place = functions.codes.enter(account)?;
    let _reading = pages::reading(&functions, account).await?;
    let tar = functions.ground.blobs.get(&version.code).await.map_err(blobs)?;
    let made = aside(tar.len(), move || json(tar, version)).await;
    let json = made.map_err(|HttpError(refused)| refused)?.map_err(rejected)?;
    Ok(Bytes::from_owner(Leaving { json, _place: place }))
}

fn json(tar: Bytes, version: Version) -> Result<Vec<u8>, Rejection> {
    let whole = Bundle::read(&tar, &BundleLimits::RESOLVED)?;
    // Up to 256 MiB, most of them packages.
    drop(tar);
    let packed = stripped(whole, &version).pack();
    let view = CodeView {
        version: version.version,
        language: version.language,
        handler: version.handler,
        bundle: STANDARD.encode(packed.tar),
    };
    Ok(serde_json::to_vec(&view).expect("a view is plain data"))
}

fn stripped(whole: Bundle, version: &Version) -> Bundle {
    let packages = match version.language {
        Language::Python => Some("packages/"),
        Language::JavaScript => Some("node_modules/"),
        Language::Image => None,
    };
    let packages = packages.filter(|_| !version.packages.is_empty());
    let entry = Some(version.language.entry_file()).filter(|_| version.site == Site::Alone);
    let sources = whole.clone();
    whole.without(|path| {
        let is_made = typescript::made_of(path).is_some_and(|source| sources.get(source).is_some());
        is_made || entry == Some(path) || packages.is_some_and(|folder| path.starts_with(folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_reads_one_code_at_a_time_until_its_last_byte_has_left() {
        let codes = Codes::default();
        let enter = |account| codes.enter(AccountId([account; 20]));
        let refused = |account| enter(account).err().map(|refused| refused.code);
        let answer = Bytes::from_owner(Leaving {
            json: b"{}".to_vec(),
            _place: enter(0).expect("nobody is there"),
        });
        let rest = answer.slice(1..);
        drop(answer);
        assert_eq!(refused(0), Some(Code::ServerBusy.into()));
        let others: Vec<_> = (1..20).filter_map(|account| enter(account).ok()).collect();
        assert_eq!(others.len(), AT_ONCE - 1);
        drop(rest);
        assert!(enter(0).is_ok(), "the place was given back");
    }
}
