//! Any bytes as two modules, before and after a change: compared both ways, and each with itself
//! under another digest.
//!
//! The first four bytes say how long the first module is. Modules that are the same are not read
//! further, so a file is never compared with itself as it is.
#![no_main]

use hot_patch_core::analysis::{self, Analysis, Request};
use hot_patch_fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((size, rest)) = bytes.split_first_chunk() else { return };
    let size = u32::from_be_bytes(*size) as usize;
    let Some((before, after)) = rest.split_at_checked(size) else { return };
    for (one, other, down) in [(before, after, false), (after, before, true)] {
        check(&analyse(one, other, down));
    }
    for file in [before, after] {
        let Some(same) = with_another_digest(file) else { continue };
        let analysis = analyse(file, &same, false);
        check(&analysis);
        // Its functions are the same, whatever they are.
        for functions in analysis.modules.iter().filter_map(|one| one.functions.as_ref()) {
            assert!(functions.added.is_empty() && functions.removed.is_empty(), "{functions:?}");
            assert!(functions.changed.is_empty(), "{functions:?}");
        }
    }
    // {1, rest, [], false}, and {1, "a", {"1", "2"}, false}.
    request("analyse", &[before, after], b"\x83h\x04a\x01w\x04restjw\x05false");
    let builds = b"\x83h\x04a\x01m\0\0\0\x01ah\x02m\0\0\0\x011m\0\0\0\x012w\x05false";
    request("appup", &[before, after], builds);
});

fn analyse(before: &[u8], after: &[u8], down: bool) -> Analysis {
    analysis::analyse(&Request {
        before: &[before],
        after: &[after],
        down,
        whole: true,
        ..Request::default()
    })
}

/// What an analysis says of a module agrees with itself.
fn check(analysis: &Analysis) {
    for module in &analysis.modules {
        assert!(!module.state_moves || module.pause != analysis::Pause::None);
        assert_eq!(analysis.order.iter().flatten().filter(|one| **one == module.module).count(), 1);
    }
    assert!(!analysis.encode().is_empty());
}

/// The module with one more chunk that its digest covers and that means nothing to its functions;
/// `None` if it has that chunk, or is no module: one of another size than it says would be mended.
fn with_another_digest(file: &[u8]) -> Option<Vec<u8>> {
    let (size, body) = file.strip_prefix(b"FOR1")?.split_first_chunk()?;
    let has_its_size = usize::try_from(u32::from_be_bytes(*size)) == Ok(body.len());
    if !has_its_size || !body.starts_with(b"BEAM") || body.windows(4).any(|id| id == b"Meta") {
        return None;
    }
    let body = [body, b"Meta\0\0\0\x02\x83j\0\0"].concat();
    let size = u32::try_from(body.len()).ok()?.to_be_bytes();
    Some([b"FOR1", &size[..], &body].concat())
}
