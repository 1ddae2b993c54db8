//! Bytes in a journal that something else has written to: a frame is whole or damage.

use piecework_fuzz::{attack, within};

use super::entry::{Entry, Frame, HEADER_BYTES, find, synced_beyond};
use crate::{
    PEAK,
    samples::{accepted, account, finished, function_id},
};

const AT: u64 = 1 << 20;

#[test]
fn any_frame_is_whole_or_damage() {
    let (function, developer) = (function_id(1), account(1));
    let entries = [
        Entry::Accepted(accepted(9, function, developer).into()),
        Entry::Finished(finished(9, function, developer).into()),
    ];
    let valid = entries.map(|entry| {
        let mut frame = Frame::encode(&entry).expect("small");
        frame.place(AT, 7).to_vec()
    });
    attack(&valid, |bytes| {
        // Texts and outputs are kept beside their bytes, and borsh gives each room of up to 1 MiB before it reads it.
        within(&PEAK, 8 * bytes.len() + (1 << 20) + (64 << 10), || {
            assert!(synced_beyond(bytes, AT) <= 7, "damage speaks of what was never synced");
            let Some(found) = find(bytes, AT) else { return false };
            assert!(found.frame_bytes() <= bytes.len());
            let Ok(Some(entry)) = found.entry() else { return false };
            let again = borsh::to_vec(&entry).expect("bytes");
            assert_eq!(
                again,
                bytes[HEADER_BYTES..found.frame_bytes()],
                "one entry has two spellings"
            );
            true
        })
    });
}
