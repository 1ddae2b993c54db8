//! What a container image is started with: its layers unpacked, its user looked up in them.

use std::{collections::BTreeMap, path::Path};

use piecework_blobs::{BlobsError, Bundle, BundleLimits};
use piecework_image::{Description, Layers, LayersInUse};
use piecework_model::Code;
use piecework_queue::Work;
use piecework_sandbox::{Image, LoadError};

use super::owners::owner_of;
use crate::journal;

type Ready = (Option<Image>, BTreeMap<String, String>, Option<LayersInUse>);

/// The image of a bundle, and the variables that it is started with. Billed to nobody.
pub(super) async fn image(layers: Option<&Layers>, bundle: &Path, work: &Work) -> Result<Ready, LoadError> {
    let Some(layers) = layers else {
        let reason = "this provider runs no container images".to_owned();
        return Err(LoadError::Unsupported { reason });
    };
    let failed = |error: BlobsError| match error {
        BlobsError::Rejected(rejection) => LoadError::Code(rejection),
        error if error.is_full() => LoadError::Code(journal::disk_full()),
        error => LoadError::Failed(error.to_string()),
    };
    let files = Bundle::pack_dir(bundle, &BundleLimits::UPLOAD).map_err(failed)?;
    let described = Description::read(&files).map_err(LoadError::Code)?;
    let in_use = layers.get(owner_of(work), &described.layers).await.map_err(failed)?;
    let entry = described.entry;
    let names = in_use.names();
    let account = layers.account(&in_use, &entry.user);
    let account = account.map_err(|rejection| {
        debug_assert!(rejection.code == Code::ImageBad, "the image says who it runs as");
        LoadError::Code(rejection)
    })?;
    let mut env = entry.env;
    env.entry("HOME".to_owned()).or_insert(account.home);
    let port = env.get("PORT").cloned();
    env.extend(work.env.clone());
    // Where it is asked is not the function's to say.
    env.extend(port.map(|port| ("PORT".to_owned(), port)));
    let image = Image {
        layers_in: layers.root().to_owned(),
        layers: names,
        arguments: entry.arguments,
        directory: entry.directory,
        user: account.ids,
        port: entry.port,
    };
    Ok((Some(image), env, Some(in_use)))
}
