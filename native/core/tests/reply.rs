//! Replies as encoded terms.

mod support;

use hot_patch_beam::shadow::{self, Naming};
use hot_patch_core::reply;
use support::beam::{AtomFormat, minimal};

const PLAIN: Naming<'_> = Naming { suffix: "$2", helper: None, closed: false };

#[test]
fn the_reply_keeps_the_order() {
    let bytes = minimal(AtomFormat::Utf8).bytes();
    let shadows = shadow::make(&[b"text", &bytes], &PLAIN);
    let encoded = reply::encode(shadows.as_slice());
    assert!(encoded.starts_with(b"\x83l\0\0\0\x02h\x02w\x05errorm"));
    let second = b"h\x02w\x02okt\0\0\0\x06w\x04namem\0\0\0\x03m$2w\x05bytesm";
    assert!(encoded.windows(second.len()).any(|window| window == second));
    let end =
        b"w\x07lambdasw\x04truew\x07by_namew\x05falsew\x06effectw\x03nilw\x0amakes_funsw\x05falsej";
    assert!(encoded.ends_with(end));
}
