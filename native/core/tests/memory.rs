//! What bytes from outside may take in memory, and in work, when they are analysed.
//!
//! Each file here is small and means much. The promise is a multiple of what it unpacks to, however
//! often it names a thing.

// An allocator that counts is unsafe by its trait.
#![allow(unsafe_code)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "support/mod.rs"]
mod support;

use hot_patch_core::analysis::{self, Analysis, Request};
use support::beam::{
    AtomFormat, Beam, atom_chunk, one_function, raw_code, raw_literals, table, tagged,
};

/// The system's allocator, which tells how much was taken at the most.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps to what `alloc` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: what the caller gives back came from `alloc` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocator is shared by all tests: each has it for itself as long as it runs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one analysis takes at the most.
fn peak(before: &[u8], after: &[u8]) -> (usize, Analysis) {
    let start = NOW.load(Ordering::Relaxed);
    PEAK.store(start, Ordering::Relaxed);
    let request = Request { before: &[before], after: &[after], ..Request::default() };
    let analysis = analysis::analyse(&request);
    (PEAK.load(Ordering::Relaxed) - start, analysis)
}

/// The analysis of a module against an empty one: every function of it is read.
fn peak_of(module: Beam) -> (usize, usize) {
    let (before, after) = (one_function(&[]).bytes(), module.bytes());
    let (peak, analysis) = peak(&before, &after);
    assert_eq!(analysis.modules.len(), 1, "{:?}", analysis.findings);
    let functions = analysis.modules[0].functions.as_ref().expect("the functions are compared");
    assert_eq!(functions.changed, ["f/0"]);
    (peak, after.len())
}

/// `move` of a literal to x0.
fn move_literal(index: u64) -> Vec<u8> {
    [vec![64, 0x47], tagged(0, index), vec![3]].concat()
}

#[test]
fn a_literal_that_is_named_often() {
    let _alone = alone();
    let mut large = b"\x83m\0\x10\0\0".to_vec();
    large.resize(large.len() + (1 << 20), 0);
    let named = |times: usize| {
        let code = move_literal(0).repeat(times);
        peak_of(one_function(&code).with(b"LitT", raw_literals(&[&large])))
    };
    let ((once, _), (often, size)) = (named(1), named(8_000));
    // Only its code, of 32 kB, is more.
    assert!(often < once + (1 << 20), "{once} {often}");
    assert!(often < 2 * size, "{often} of {size}");
}

#[test]
fn a_string_that_is_named_often() {
    let _alone = alone();
    // bs_put_string of 500 kB, each time from another place.
    let put = |from: u64| [vec![92], tagged(0, 500_000), tagged(0, from)].concat();
    let code: Vec<u8> = (0..300).flat_map(put).collect();
    let (peak, size) = peak_of(one_function(&code).with(b"StrT", vec![0; 600_000]));
    assert!(peak < 2 * size, "{peak} of {size}");
}

#[test]
fn terms_that_mean_more_than_their_bytes() {
    let _alone = alone();
    let count = 200_000;
    let head = |tag: u8, count: usize| [&[131, tag][..], &(count as u32).to_be_bytes()].concat();
    let pairs: Vec<u8> =
        (0..count as u32).flat_map(|n| [&[98][..], &n.to_be_bytes(), &[106]].concat()).collect();
    let structs = b"t\0\0\0\x01w\x0a__struct__w\x01m".repeat(count / 10);
    let atoms: Vec<u8> =
        (0..50_000).flat_map(|n| [&[119, 5][..], format!("{n:05}").as_bytes()].concat()).collect();
    let terms = [
        ("pairs", [head(116, count), pairs].concat(), 24),
        ("empty maps", [head(108, count), b"t\0\0\0\0".repeat(count), vec![106]].concat(), 24),
        ("small numbers", [head(108, count), b"a\x01".repeat(count), vec![106]].concat(), 24),
        ("a tuple", [head(105, count), b"j".repeat(count)].concat(), 24),
        (
            "functions",
            [head(108, count), b"h\x02w\x01fa\x02".repeat(count), vec![106]].concat(),
            24,
        ),
        ("structs", [head(108, count / 10), structs, vec![106]].concat(), 24),
        ("atoms", [head(108, 50_000), atoms, vec![106]].concat(), 24),
    ];
    for (what, term, most) in terms {
        let (peak, size) =
            peak_of(one_function(&move_literal(0)).with(b"LitT", raw_literals(&[&term])));
        assert!(peak < most * size, "{what}: {peak} of {size}");
    }
}

#[test]
fn many_small_literals() {
    let _alone = alone();
    let terms = vec![&b"\x83j"[..]; 100_000];
    let code: Vec<u8> = (0..100_000).flat_map(move_literal).collect();
    let (peak, size) = peak_of(one_function(&code).with(b"LitT", raw_literals(&terms)));
    assert!(peak < 30 * size, "{peak} of {size}");
}

#[test]
fn maps_in_each_other_are_hashed_once() {
    let _alone = alone();
    // 120 maps around 4 MB: read by all of them, it would be 480.
    let mut term = b"\x83".to_vec();
    term.extend(b"t\0\0\0\x01w\x01a".repeat(120));
    term.extend(b"m\0\x40\0\0");
    term.resize(term.len() + (4 << 20), 0);
    let (peak, size) =
        peak_of(one_function(&move_literal(0)).with(b"LitT", raw_literals(&[&term])));
    assert!(peak < size, "{peak} of {size}");
}

#[test]
fn functions_labels_and_operands() {
    let _alone = alone();
    // 20,000 functions of nothing, all exported: label, func_info, label, return.
    let module = calling(&names(20_000), &[]);
    let (before, after) = (one_function(&move_literal(0)).bytes(), module.bytes());
    let (peak, analysis) = peak(&before, &after);
    assert_eq!(analysis.modules.len(), 1);
    assert!(peak < 64 * after.len(), "{peak} of {}", after.len());
    // One select_val with 500,000 operands.
    let list = [tagged(7, 1), tagged(0, 500_000)].concat();
    let select = [vec![59, 3, 0x15], list, b"\x12\x15".repeat(250_000)].concat();
    let (peak, size) = peak_of(one_function(&select));
    assert!(peak < 64 * size, "{peak} of {size}");
}

/// Names that are all different.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("f{n:06}")).collect()
}

/// Functions without arguments that only return, by the places of their names among the atoms.
fn functions(names: impl Iterator<Item = u64>) -> Vec<u8> {
    let label = |n| [vec![1], tagged(0, n)].concat();
    let info = |name| [vec![2, 0x12], tagged(2, name), vec![0]].concat();
    (0..)
        .zip(names)
        .flat_map(|(n, name)| [label(2 * n + 1), info(name), label(2 * n + 2), vec![19]].concat())
        .chain([3])
        .collect()
}

/// The module `m` that offers and calls these functions.
fn calling(offered: &[String], called: &[String]) -> Beam {
    let all: Vec<&str> =
        ["m", "f"].into_iter().chain(offered.iter().chain(called).map(String::as_str)).collect();
    let count = offered.len() as u32;
    let exports: Vec<[u32; 3]> = (0..count).map(|n| [n + 3, 0, 2 * n + 2]).collect();
    let code = functions(3..u64::from(count) + 3);
    let imports: Vec<[u32; 3]> =
        (0..called.len()).map(|n| [1, (offered.len() + n) as u32 + 3, 0]).collect();
    let mut module = one_function(&[])
        .with(b"Code", raw_code(180, 2 * count + 1, count, &code))
        .with(b"ExpT", table(&exports))
        .with(b"ImpT", table(&imports))
        .without(b"AtU8");
    module.0.insert(0, atom_chunk(AtomFormat::Utf8, &all));
    module
}

/// Where each is compared with each it takes hours: it is enough that this comes to an end.
#[test]
fn exports_and_imports_are_not_compared_each_with_each() {
    let _alone = alone();
    let (some, others) = (names(200_000), names(400_000).split_off(200_000));
    let (one, other) = (calling(&some, &others).bytes(), calling(&others, &some).bytes());
    let (peak, analysis) = peak(&one, &other);
    assert_eq!(analysis.modules[0].exports_added.len(), 200_000);
    assert_eq!(analysis.modules[0].exports_removed.len(), 200_000);
    assert!(peak < 40 * one.len(), "{peak} of {}", one.len());
}
