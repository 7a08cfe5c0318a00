//! Any bytes as a frame from the parent, and what the request in it asks for.
#![no_main]

use hot_patch_fuzz::request;
use hot_patch_port::port::protocol::{self, Blob, Message};
use libfuzzer_sys::fuzz_target;

// A panic that is caught is no finding: only one that gets here ends the fuzzer.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| {
    let Ok(Message::Call(call)) = protocol::decode(bytes) else { return };
    let head = protocol::reply_head(call.id, 0);
    assert_eq!(head.len(), 22);
    let blobs: Vec<&[u8]> = call
        .blobs
        .iter()
        .filter_map(|blob| match blob {
            Blob::Bytes(bytes) => Some(bytes.as_slice()),
            Blob::File(..) => None,
        })
        .collect();
    request(&call.name, &blobs, &call.options);
});
