//! Patches out of two builds.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[allow(dead_code, unreachable_pub)]
#[path = "../../beam/tests/support/beam.rs"]
mod beam;
#[allow(dead_code)]
mod support;

use std::fs;
use std::path::Path;

use beam::{AtomFormat, atom_chunk, code, function, minimal, words};
use hot_patch_build::{Built, Request};
use hot_patch_core::manifest::{Change, Finding, Signature};
use hot_patch_core::{Options, read_archive, sign};
use support::{Folder, built, module, paths, request, try_build};

/// A release that has every kind of file that there is.
fn release(name: &str, vsn: &str) -> Folder {
    let folder = Folder::new(name);
    folder.put("releases/start_erl.data", format!("13.1.5 {vsn}").as_bytes());
    let rel = format!(
        "{{release,{{\"shop\",\"{vsn}\"}},{{erts,\"13.1.5\"}},[{{shop,\"{vsn}\"}},{{elixir,\"1.14.0\"}}]}}."
    );
    folder.put(&format!("releases/{vsn}/shop.rel"), rel.as_bytes());
    folder.put(&format!("releases/{vsn}/consolidated/p.beam"), &module("p", 1).bytes());
    folder.put(&format!("lib/shop-{vsn}/ebin/p.beam"), &module("p", 1).bytes());
    for same in ["a", "b", "c"] {
        let path = format!("lib/shop-{vsn}/ebin/{same}.beam");
        folder.put(&path, &module(same, 1).bytes());
    }
    folder.put(&format!("lib/shop-{vsn}/ebin/shop.app"), vsn.as_bytes());
    folder.put(&format!("lib/shop-{vsn}/priv/rates/eu.csv"), b"1");
    folder.put("lib/elixir-1.14.0/ebin/e.beam", &module("e", 1).bytes());
    folder
}

#[test]
fn only_what_differs_is_taken() {
    let from = release("differs_from", "1.0.0");
    let to = release("differs_to", "1.0.0");
    to.put("lib/shop-1.0.0/ebin/b.beam", &module("b", 2).bytes());
    to.put("lib/shop-1.0.0/ebin/new.beam", &module("new", 1).bytes());
    to.put("lib/shop-1.0.0/priv/rates/eu.csv", b"2");
    to.put("releases/1.0.0/consolidated/p.beam", &module("p", 2).bytes());
    // Never loaded from there, because there is a consolidated one.
    to.put("lib/shop-1.0.0/ebin/p.beam", &module("p", 3).bytes());
    to.put("lib/shop-1.0.0/ebin/shop.app", b"of no interest");
    to.put("lib/elixir-1.14.0/ebin/e.beam", &module("e", 2).bytes());
    fs::remove_file(to.0.join("lib/shop-1.0.0/ebin/c.beam")).unwrap();

    let built = built(&request(&from.0, &to.0));
    let manifest = &built.manifest;
    let expected = [
        "releases/1.0.0/consolidated/p.beam",
        "shop-1.0.0/ebin/b.beam",
        "shop-1.0.0/ebin/new.beam",
        "shop-1.0.0/priv/rates/eu.csv",
    ];
    assert_eq!(paths(manifest), expected);
    let release = manifest.release.as_ref().unwrap();
    assert_eq!((release.name.as_str(), release.version.as_str()), ("shop", "1.0.0"));
    assert_eq!(manifest.built_with.otp.as_deref(), Some("25"));
    assert_eq!(manifest.built_with.elixir.as_deref(), Some("1.14.0"));

    let b = manifest.files[1].module.as_ref().unwrap();
    assert_eq!((b.name.as_str(), b.change), ("b", Change::Replace));
    // The MD5 does not cover attributes.
    let replaces = b.replaces.as_ref().unwrap();
    assert_eq!(replaces.md5, b.brings.md5);
    assert_eq!((replaces.vsn.as_deref(), b.brings.vsn.as_deref()), (Some("[1]"), Some("[2]")));
    assert_eq!(manifest.files[2].module.as_ref().unwrap().change, Change::Add);
    assert_eq!(manifest.removed.len(), 1);
    assert_eq!(manifest.removed[0].path, "shop-1.0.0/ebin/c.beam");
    assert_eq!(manifest.removed[0].module.as_ref().unwrap().name, "c");
}

/// A module that offers `f/0`, which calls `f/0` of another one, if there is one.
/// Two builds of two applications; the second has `a`, `b` and `c` in other places.
fn moving(test: &str, place: &str, vsn: u8) -> Request {
    let [from, to] = ["from", "to"].map(|side| release(&format!("{test}_{side}"), "1.0.0"));
    from.put("lib/store-2.0/ebin/s.beam", &module("s", 1).bytes());
    to.put("lib/store-2.0/ebin/s.beam", &module("s", 1).bytes());
    fs::remove_file(to.0.join("lib/shop-1.0.0/ebin/b.beam")).unwrap();
    to.put(&format!("lib/{place}/ebin/b.beam"), &module("b", vsn).bytes());
    request(&from.0, &to.0)
}

/// Where modules are, and where they are no longer.
fn places(built: &Built) -> (Vec<&str>, Vec<&str>) {
    let removed = built.manifest.removed.iter().map(|file| file.path.as_str()).collect();
    (paths(&built.manifest), removed)
}

#[test]
fn a_module_moves_to_another_application() {
    for vsn in [1, 2] {
        // Also where it is the same in its new place.
        let built = built(&moving(&format!("moves_{vsn}"), "store-2.0", vsn));
        assert_eq!(places(&built), (vec!["store-2.0/ebin/b.beam"], vec!["shop-1.0.0/ebin/b.beam"]));
        let moved = built.manifest.files[0].module.as_ref().unwrap();
        let goes = &built.manifest.removed[0].module.as_ref().unwrap();
        assert_eq!((moved.change, goes.name.as_str()), (Change::Replace, "b"));
        assert_eq!(moved.replaces.as_ref(), Some(&goes.replaces));
        assert_eq!(built.manifest.load_order, ["b"]);
        assert_eq!(built.notes, ["from shop to store moves b"]);
        // What the reader says to it.
        let composition = read_archive(&built.zip, &Options::default()).unwrap();
        assert_eq!(composition.manifest.unwrap().manifest, built.manifest);
    }
}

#[test]
fn a_module_that_moves_to_what_a_patch_cannot_bring_stays() {
    let built = built(&moving("stays", "new-1.0", 2));
    assert_eq!(places(&built), (vec!["shop-1.0.0/ebin/b.beam"], vec![]));
    assert_eq!(built.manifest.files[0].module.as_ref().unwrap().change, Change::Replace);
    assert!(built.notes.iter().any(|note| note.contains("moves b: in the patch it stays in shop")));
    // The same code in the new application is no change at all.
    let error = try_build(&moving("stays_same", "new-1.0", 1)).unwrap_err();
    assert!(error.to_string().contains("nothing differs"), "{error}");
}

#[test]
fn modules_leave_an_application_that_goes() {
    let request = moving("leaves", "shop-1.0.0", 1);
    fs::remove_dir_all(request.to.join("lib/store-2.0")).unwrap();
    fs::write(request.to.join("lib/shop-1.0.0/ebin/s.beam"), module("s", 2).bytes()).unwrap();
    let built = built(&request);
    assert_eq!(places(&built), (vec!["shop-1.0.0/ebin/s.beam"], vec!["store-2.0/ebin/s.beam"]));
}

#[test]
fn of_a_module_in_two_places_nothing_is_said() {
    let request = moving("two_places", "store-2.0", 2);
    // It is in its former place too.
    fs::write(request.to.join("lib/shop-1.0.0/ebin/b.beam"), module("b", 1).bytes()).unwrap();
    let built = built(&request);
    assert_eq!(places(&built), (vec!["store-2.0/ebin/b.beam"], vec![]));
    assert!(!built.notes.iter().any(|note| note.contains("moves")));
}

fn calling(name: &str, other: Option<&str>, offers: bool) -> Vec<u8> {
    let names = [name, "f", other.unwrap_or("erlang")];
    let imports: &[u32] = if other.is_some() { &[1, 3, 2, 0] } else { &[0] };
    let exports: &[u32] = if offers { &[1, 2, 0, 2] } else { &[0] };
    minimal(AtomFormat::Utf8)
        .with(b"AtU8", atom_chunk(AtomFormat::Utf8, &names).1)
        .with(b"ImpT", words(imports))
        .with(b"ExpT", words(exports))
        .with(b"Code", code(180, 3, &[function(1, 2, 0, &[19])]))
        .without(b"LocT")
        .without(b"FunT")
        .bytes()
}

/// In two builds of a shop `a` calls `b`, which calls `c`; in the second all are other.
fn chain(test: &str, offers: bool) -> Request {
    let sides = ["from", "to"].map(|side| {
        let folder = Folder::new(&format!("{test}_{side}"));
        let put = |name: &str, bytes: &[u8]| {
            folder.put(&format!("lib/shop/ebin/{name}.beam"), bytes);
        };
        for (name, other) in [("a", "b"), ("b", "c")] {
            let other = if side == "from" { None } else { Some(other) };
            put(name, &calling(name, other, true));
        }
        put("c", &calling("c", (side == "to").then_some("erlang"), side == "from" || offers));
        folder
    });
    request(&sides[0].0, &sides[1].0)
}

#[test]
fn each_module_is_loaded_behind_those_that_it_calls() {
    let request = chain("chain", true);
    let built = built(&request);
    assert_eq!(built.refused, []);
    assert_eq!(built.manifest.load_order, ["c", "b", "a"]);
    let instructions = &built.manifest.instructions;
    assert_eq!(instructions.up, ["{load_module,c}", "{load_module,b,[c]}", "{load_module,a,[b]}"]);
    // On the way back none of them calls another.
    assert_eq!(instructions.down, ["{load_module,a}", "{load_module,b}", "{load_module,c}"]);
    // Picked by hand they have the order, and nothing leads back to what nobody knows.
    let modules = ["a", "b", "c"].map(str::to_owned).to_vec();
    let picked = Request { from: None, modules: Some(modules), ..request };
    let built = try_build(&picked).unwrap();
    assert_eq!(built.manifest.load_order, ["c", "b", "a"]);
    assert_eq!(built.manifest.instructions.up, Vec::<String>::new());
}

#[test]
fn what_is_dangerous_is_refused_unless_it_is_accepted() {
    let request = chain("dangerous", false);
    let refused = built(&request);
    let names: Vec<_> = refused.refused.iter().map(|one| (one.kind.name(), &*one.module)).collect();
    assert_eq!(names, [("missing_function_called", "b")]);
    let refusal = refused.refusal().unwrap();
    assert!(refusal.contains("--accept missing_function_called:b"), "{refusal}");

    let accept = |rule: &str, module: Option<&str>| {
        let (rule, module) = (rule.to_owned(), module.map(str::to_owned));
        let accepted_findings = vec![Finding { rule, module, reason: None }];
        try_build(&Request { accepted_findings, ..request.clone() })
    };
    for module in [None, Some("b")] {
        let built = accept("missing_function_called", module).unwrap();
        assert_eq!((built.refusal(), built.refused), (None, Vec::new()));
        let [accepted] = &built.manifest.accepted_findings[..] else { panic!("{module:?}") };
        assert_eq!(accepted.rule, "missing_function_called");
        assert_eq!(accepted.module.as_deref(), Some("b"));
    }
    for (rule, module) in [("missing_function_called", Some("a")), ("on_lode", None)] {
        let error = accept(rule, module).unwrap_err().to_string();
        assert!(error.contains(rule) && error.contains("matches nothing"), "{error}");
        assert!(error.contains("missing_function_called:b"), "{error}");
    }
}

#[test]
fn what_is_built_is_accepted_and_always_the_same() {
    let from = release("same_from", "1.0.0");
    let to = release("same_to", "1.0.0");
    for name in ["a", "b", "c", "ünï"] {
        let path = format!("lib/shop-1.0.0/ebin/{name}.beam");
        to.put(&path, &module(name, 2).bytes());
    }
    let first = built(&request(&from.0, &to.0));
    for _ in 0..5 {
        assert_eq!(built(&request(&from.0, &to.0)), first);
    }
    for packed in [false, true] {
        let of_tars = built(&request(&from.tar(packed), &to.tar(packed)));
        assert_eq!(of_tars, first, "packed: {packed}");
    }
    let composition = read_archive(&first.zip, &Options::default()).unwrap();
    assert_eq!(composition.files.len(), 4);
    assert_eq!(composition.manifest.unwrap().manifest, first.manifest);
}

#[test]
#[cfg(unix)]
fn programs_stay_programs() {
    use std::os::unix::fs::PermissionsExt;

    let from = release("programs_from", "1.0.0");
    let to = release("programs_to", "1.0.0");
    to.put("lib/shop-1.0.0/priv/report", b"#!/bin/sh");
    to.put("lib/shop-1.0.0/priv/rates/eu.csv", b"2");
    let program = to.0.join("lib/shop-1.0.0/priv/report");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o750)).unwrap();
    for to in [to.0.clone(), to.tar(true)] {
        let zip = built(&request(&from.0, &to)).zip;
        let files = read_archive(&zip, &Options::default()).unwrap().files;
        let found: Vec<_> = files.iter().map(|file| (file.path, file.executable)).collect();
        let csv = ("shop-1.0.0/priv/rates/eu.csv", false);
        assert_eq!(found, [csv, ("shop-1.0.0/priv/report", true)]);
    }
}

#[test]
fn what_the_mac_adds_to_a_folder_is_left_out_and_told() {
    let from = release("mac_from", "1.0.0");
    let to = release("mac_to", "1.0.0");
    to.put("lib/shop-1.0.0/ebin/b.beam", &module("b", 2).bytes());
    to.put("lib/shop-1.0.0/ebin/._b.beam", b"Mac OS X");
    to.put("lib/shop-1.0.0/priv/.DS_Store", b"Bud1");
    let built = built(&request(&from.0, &to.0));
    assert_eq!(paths(&built.manifest), ["shop-1.0.0/ebin/b.beam"]);
    let note = "shop-1.0.0/ebin/._b.beam, shop-1.0.0/priv/.DS_Store: only what the Mac adds";
    assert!(built.notes.iter().any(|text| text.starts_with(note)), "{:?}", built.notes);
}

#[test]
fn lines_and_debug_information_alone_are_no_difference() {
    let from = release("lines_from", "1.0.0");
    let to = release("lines_to", "1.0.0");
    let other_lines =
        module("a", 1).with(b"Line", [words(&[0, 0, 0, 1, 0]), vec![0x11]].concat()).bytes();
    to.put("lib/shop-1.0.0/ebin/a.beam", &other_lines);
    to.put("lib/shop-1.0.0/ebin/b.beam", &module("b", 2).bytes());
    let mut request = request(&from.0, &to.0);
    let built_without = built(&request);
    assert_eq!(paths(&built_without.manifest), ["shop-1.0.0/ebin/b.beam"]);
    assert!(built_without.notes.iter().any(|note| note.contains("a.beam")));
    request.all_differences = true;
    let all = built(&request).manifest;
    assert_eq!(paths(&all), ["shop-1.0.0/ebin/a.beam", "shop-1.0.0/ebin/b.beam"]);
}

#[test]
fn modules_are_picked_by_hand() {
    let from = release("picked_from", "1.0.0");
    let to = release("picked_to", "1.0.0");
    to.put("lib/shop-1.0.0/ebin/b.beam", &module("b", 2).bytes());
    to.put("lib/shop-1.0.0/ebin/Elixir.Shop.beam", &module("Elixir.Shop", 2).bytes());
    let mut request = request(&from.0, &to.0);
    request.modules = Some(vec!["b".to_owned(), "Shop".to_owned()]);
    let manifest = built(&request).manifest;
    let expected = ["shop-1.0.0/ebin/Elixir.Shop.beam", "shop-1.0.0/ebin/b.beam"];
    assert_eq!(paths(&manifest), expected);
    request.from = None;
    let manifest = built(&request).manifest;
    assert_eq!(paths(&manifest), expected);
    assert!(manifest.files.iter().all(|f| f.module.as_ref().unwrap().change == Change::Any));
    request.modules = Some(vec!["Shops".to_owned()]);
    let error = try_build(&request).unwrap_err();
    assert!(error.to_string().contains("no module Shops"), "{error}");
}

#[test]
fn a_build_folder_is_named_as_the_release_that_runs() {
    let from = release("layout_from", "1.0.0");
    let to = Folder::new("layout_to");
    to.put("lib/shop/ebin/a.beam", &module("a", 2).bytes());
    to.put("lib/shop/ebin/shop.app", b"{application,shop,[{vsn,\"1.0.0\"}]}.");
    to.put("lib/shop/consolidated/p.beam", &module("p", 2).bytes());
    let built_of_release = built(&request(&from.0, &to.0));
    let manifest = &built_of_release.manifest;
    assert_eq!(paths(manifest), ["releases/1.0.0/consolidated/p.beam", "shop-1.0.0/ebin/a.beam"]);
    assert_eq!(built_of_release.notes, Vec::<String>::new());
    // Two build folders: named as they are, or as a release that is told.
    let older = Folder::new("layout_older");
    older.put("lib/shop/ebin/a.beam", &module("a", 1).bytes());
    older.put("lib/shop/ebin/shop.app", b"{application,shop,[{vsn,\"1.0.0\"}]}.");
    let mut request = request(&older.0, &to.0);
    assert_eq!(paths(&built(&request).manifest), ["shop/ebin/a.beam"]);
    request.release = manifest.release.clone();
    assert_eq!(paths(&built(&request).manifest), ["shop-1.0.0/ebin/a.beam"]);
}

#[test]
fn settings_are_told_and_not_taken() {
    let from = release("settings_from", "1.0.0");
    let to = release("settings_to", "1.0.0");
    from.put("releases/1.0.0/sys.config", b"[].");
    to.put("releases/1.0.0/sys.config", b"[{shop,[]}].");
    to.put("lib/shop-1.0.0/ebin/b.beam", &module("b", 2).bytes());
    let built = built(&request(&from.0, &to.0));
    assert_eq!(paths(&built.manifest), ["shop-1.0.0/ebin/b.beam"]);
    assert!(built.notes.iter().any(|note| note.starts_with("sys.config differs")));
}

#[test]
fn of_an_upgraded_release_the_version_that_boots_counts() {
    let from = release("upgraded_from", "1.1.0");
    let older = module("a", 9).bytes();
    from.put("lib/shop-1.0.0/ebin/a.beam", &older);
    from.put("releases/1.0.0/shop.rel", b"{release,{\"shop\",\"1.0.0\"},{erts,\"13.0\"},[]}.");
    let to = release("upgraded_to", "1.1.0");
    to.put("lib/shop-1.1.0/ebin/a.beam", &module("a", 2).bytes());
    let manifest = built(&request(&from.0, &to.0)).manifest;
    assert_eq!(paths(&manifest), ["shop-1.1.0/ebin/a.beam"]);
    assert_eq!(manifest.release.unwrap().version, "1.1.0");
}

#[test]
fn errors_name_the_thing() {
    let from = release("errors_from", "1.0.0");
    let to = release("errors_to", "1.0.0");
    let error = |request: &Request| try_build(request).unwrap_err().to_string();
    assert!(error(&request(&from.0, &to.0)).contains("nothing differs"));
    assert!(error(&request(&from.0, Path::new("/nowhere"))).contains("/nowhere"));
    let empty = Folder::new("errors_empty");
    assert!(error(&request(&from.0, &empty.0)).contains("holds no build"));
    let file = empty.0.join("file.tar.gz");
    fs::write(&file, b"no tar").unwrap();
    assert!(error(&request(&from.0, &file)).contains("holds no build"));
    to.put("lib/shop-1.0.0/ebin/a.beam", b"FOR1 no module");
    let text = error(&request(&from.0, &to.0));
    assert!(text.contains("shop-1.0.0/ebin/a.beam"), "{text}");
    let two = Folder::new("errors_two");
    two.put("lib/shop-1/ebin/a.beam", &module("a", 1).bytes());
    two.put("lib/shop-2/ebin/a.beam", &module("a", 2).bytes());
    let text = error(&request(&two.0, &to.0));
    assert!(text.contains("shop-1") && text.contains("shop-2"), "{text}");
}

#[test]
fn a_signature_is_put_into_the_archive() {
    let from = release("signed_from", "1.0.0");
    let to = release("signed_to", "1.0.0");
    to.put("lib/shop-1.0.0/ebin/a.beam", &module("a", 2).bytes());
    let zip = built(&request(&from.0, &to.0)).zip;
    let patch = read_archive(&zip, &Options::default()).unwrap();
    let signature = Signature {
        algorithm: "ed25519".to_owned(),
        key: format!("{}=", "A".repeat(43)),
        name: "alice".to_owned(),
        signature: format!("{}==", "A".repeat(86)),
    };
    let signed = sign(&patch, &signature).unwrap();
    let read = read_archive(&signed, &Options::default()).unwrap();
    assert_eq!(read.signature, Some(signature.clone()));
    assert_eq!((&read.manifest, &read.files), (&patch.manifest, &patch.files));
    // Signed again it has one signature still.
    assert_eq!(sign(&read, &signature).unwrap(), signed);
}
