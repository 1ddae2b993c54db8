//! The backend that ran a job, as records have it since there are records: its name as text, empty where nobody ran it.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_model::BackendName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

fn text(backend: Option<BackendName>) -> &'static str {
    backend.map_or("", BackendName::as_str)
}

fn parsed(text: &str) -> Result<Option<BackendName>, String> {
    match text {
        "" => Ok(None),
        name => name
            .parse()
            .map(Some)
            .map_err(|_| format!("no backend is called `{name}`")),
    }
}

pub(super) fn serialize<S: Serializer>(backend: &Option<BackendName>, to: S) -> Result<S::Ok, S::Error> {
    Serialize::serialize(text(*backend), to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BackendName>, D::Error> {
    parsed(&<String as Deserialize>::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn write<W: io::Write>(backend: &Option<BackendName>, to: &mut W) -> io::Result<()> {
    BorshSerialize::serialize(text(*backend), to)
}

pub(super) fn read<R: io::Read>(from: &mut R) -> io::Result<Option<BackendName>> {
    let text = String::deserialize_reader(from)?;
    parsed(&text).map_err(|unknown| io::Error::new(io::ErrorKind::InvalidData, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_name() {
        for backend in BackendName::ALL.map(Some).into_iter().chain([None]) {
            let mut bytes = Vec::new();
            write(&backend, &mut bytes).expect("written");
            assert_eq!(bytes, borsh::to_vec(text(backend)).expect("a text"));
            assert_eq!(read(&mut &bytes[..]).expect("read"), backend);
        }
        let unknown = borsh::to_vec("cloud").expect("a text");
        assert_eq!(
            read(&mut &unknown[..]).expect_err("unknown").kind(),
            io::ErrorKind::InvalidData
        );
    }
}
