//! What sandboxes run, and the technologies that they are made of.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Code, Rejection};

/// What a provider runs in a sandbox.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// One handler of a bundle: answers calls.
    Function,
    /// A container image: answers requests.
    Image,
    /// Containers that run until they are stopped.
    Pod,
}

impl Workload {
    pub const ALL: [Self; 3] = [Self::Function, Self::Image, Self::Pod];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Image => "image",
            Self::Pod => "pod",
        }
    }

    /// Whether one live instance may serve several calls at the same time. A handler's module state is written for one.
    pub fn serves_at_once(self) -> bool {
        match self {
            Self::Function => false,
            Self::Image | Self::Pod => true,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The isolation technologies, by the names users type.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    Wasm,
    Jail,
    Oci,
    Gvisor,
    Docker,
    Microvm,
}

impl BackendName {
    pub const ALL: [Self; 6] = [
        Self::Wasm,
        Self::Jail,
        Self::Oci,
        Self::Gvisor,
        Self::Docker,
        Self::Microvm,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Jail => "jail",
            Self::Oci => "oci",
            Self::Gvisor => "gvisor",
            Self::Docker => "docker",
            Self::Microvm => "microvm",
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BackendName {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            Rejection::new(Code::SandboxUnknown, format!("`{text}` is not a sandbox"))
                .hint("use auto, wasm, jail, oci, gvisor, docker or microvm; `piecework doctor` says which work here")
                .field("sandbox")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_typed_in_json_and_on_disk() {
        for (place, name) in BackendName::ALL.into_iter().enumerate() {
            assert_eq!(name.as_str().parse(), Ok(name));
            assert_eq!(serde_json::to_value(name).expect("JSON"), name.as_str());
            assert_eq!(
                borsh::to_vec(&name).expect("a byte"),
                [u8::try_from(place).expect("few")]
            );
        }
        for (place, workload) in Workload::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_value(workload).expect("JSON"), workload.as_str());
            assert_eq!(
                borsh::to_vec(&workload).expect("a byte"),
                [u8::try_from(place).expect("few")]
            );
        }
        let unknown = "chroot".parse::<BackendName>().expect_err("it is none");
        assert_eq!(unknown.code, Code::SandboxUnknown);
    }
}
