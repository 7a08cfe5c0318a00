//! The table by which the VM finds the NIFs.
//!
//! `rustler::init!` would make it, but without an upgrade callback, and then a second version of
//! `HotPatch.Native` cannot be loaded while the first is there: the one module that a hot
//! patching system could not patch. The library keeps no state, so an upgrade has nothing to do.
//!
//! This uses what `rustler::init!` expands to in the version of rustler pinned in the workspace.

#[cfg(windows)]
compile_error!("the NIF table is written for Unix; on Windows nif_init takes callbacks");

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use rustler::codegen_runtime::{
    ErlNifEntry, ErlNifEnv, ErlNifFunc, ErlNifTerm, internal_write_symbols, inventory,
};

/// The module the NIFs belong to.
const MODULE: &std::ffi::CStr = c"Elixir.HotPatch.Native";

/// An entry table that may be shared: it is not changed after it is made, and what it points to
/// lives as long as the library.
struct Entry(ErlNifEntry);

// SAFETY: the pointers in the table lead to static or leaked data that nobody writes to.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

static ENTRY: OnceLock<Entry> = OnceLock::new();

/// Called by the VM each time it loads the library.
#[unsafe(no_mangle)]
extern "C" fn nif_init() -> *const ErlNifEntry {
    &raw const ENTRY.get_or_init(make).0
}

fn make() -> Entry {
    // SAFETY: looks up the functions of the VM that has loaded this library, before any of them
    // is used.
    unsafe { internal_write_symbols() };
    let functions: &'static [ErlNifFunc] =
        inventory::iter::<rustler::Nif>().map(rustler::Nif::get_def).collect::<Vec<_>>().leak();
    let mut entry = ErlNifEntry::new(MODULE, functions, load);
    entry.upgrade = Some(upgrade);
    Entry(entry)
}

/// Accepts being loaded: there is no state to make.
extern "C" fn load(_: *mut ErlNifEnv, _: *mut *mut c_void, _: ErlNifTerm) -> c_int {
    0
}

/// Accepts taking over from an older version of the module: there is no state to hand over.
extern "C" fn upgrade(
    _: *mut ErlNifEnv,
    _: *mut *mut c_void,
    _: *mut *mut c_void,
    _: ErlNifTerm,
) -> c_int {
    0
}
