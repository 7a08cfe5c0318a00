//! Upgrades out of two releases.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[allow(dead_code, unreachable_pub)]
#[path = "../../beam/tests/support/beam.rs"]
mod beam;
#[allow(dead_code)]
mod support;

use std::fs;

use hot_patch_core::manifest::Change;
use hot_patch_core::{Kind, Options, read_archive};
use support::shop::{application, built_of, error_of, release, releases};
use support::{built, module, paths, request, try_build};

#[test]
fn what_changes_comes_whole() {
    let releases = releases("whole");
    let manifest = built_of(&releases).manifest;
    assert_eq!(
        paths(&manifest),
        [
            "lib/rates-0.1.0/ebin/r.beam",
            "lib/rates-0.1.0/ebin/rates.app",
            "lib/rates-0.1.0/priv/help/rates.txt",
            "lib/shop-1.1.0/ebin/a.beam",
            "lib/shop-1.1.0/ebin/b.beam",
            "lib/shop-1.1.0/ebin/d.beam",
            "lib/shop-1.1.0/ebin/p.beam",
            "lib/shop-1.1.0/ebin/shop.app",
            "lib/shop-1.1.0/priv/help/shop.txt",
            "releases/1.1.0/consolidated/p.beam",
            "releases/1.1.0/shop.rel",
            "releases/1.1.0/start.boot",
            "releases/1.1.0/sys.config",
        ]
    );
    let upgrade = manifest.upgrade.as_ref().unwrap();
    assert_eq!((upgrade.to.as_str(), upgrade.erts.as_str()), ("1.1.0", "13.1.5"));
    let found: Vec<_> = upgrade
        .applications
        .iter()
        .map(|one| (one.name.as_str(), one.from.as_deref(), one.to.as_deref()))
        .collect();
    assert_eq!(
        found,
        [
            ("rates", None, Some("0.1.0")),
            ("shop", Some("1.0.0"), Some("1.1.0")),
            ("legacy", Some("0.3.0"), None),
        ]
    );
    let starts: Vec<_> =
        upgrade.applications.iter().map(|one| one.start.map(|s| s.name())).collect();
    assert_eq!(starts, [Some("temporary"), Some("permanent"), None]);
    let shared: Vec<&str> = upgrade.shared.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(shared, ["lib/kernel-8.5.3", "lib/scales-1.0.0"]);
    assert_eq!(upgrade.files, &paths(&manifest)[9..]);
    let gone: Vec<&str> = manifest.removed.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(gone, ["lib/legacy-0.3.0/ebin/l.beam", "lib/shop-1.0.0/ebin/c.beam"]);
}

#[test]
fn modules_are_told_by_what_runs_until_then() {
    let releases = releases("modules");
    let built = built_of(&releases);
    let modules = built.manifest.files.iter().filter_map(|file| {
        let module = file.module.as_ref()?;
        let unchanged = module.replaces.as_ref() == Some(&module.brings);
        Some((file.path.rsplit('/').next()?, module.change, unchanged))
    });
    let expected = [
        ("r.beam", Change::Add, false),
        ("a.beam", Change::Replace, true),
        ("b.beam", Change::Replace, false),
        ("d.beam", Change::Add, false),
        // The application's own copy of a protocol is never loaded.
        ("p.beam", Change::Replace, true),
    ];
    assert!(modules.eq(expected));
    // What is found is of what changes.
    let found: Vec<&str> = built.analysis.modules.iter().map(|one| one.module.as_str()).collect();
    assert_eq!(found, ["b", "c", "d", "l", "r"]);
    let order = &built.manifest.load_order;
    assert_eq!(order.len(), 5, "{order:?}");

    let composition = read_archive(&built.zip, &Options::default()).unwrap();
    let kind = |path: &str| &composition.files.iter().find(|file| file.path == path).unwrap().kind;
    assert_eq!(kind("lib/shop-1.1.0/ebin/p.beam"), &Kind::Other);
    assert!(matches!(kind("releases/1.1.0/consolidated/p.beam"), Kind::Beam(_)));
    assert_eq!(composition.manifest.unwrap().manifest, built.manifest);
}

#[test]
fn applications_come_behind_those_that_they_need() {
    let from = release("order_from", "1.0.0", "{one,\"1.0\"},{two,\"1.0\"}");
    let to = release("order_to", "1.1.0", "{web,\"1.0\"},{shop,\"1.0\"},{store,\"1.0\"}");
    for (folder, name, needs) in [
        (&from, "one", "[kernel]"),
        (&from, "two", "[one]"),
        (&to, "web", "[kernel,shop]"),
        (&to, "shop", "[store,web]"),
        (&to, "store", "[kernel]"),
    ] {
        let resource = format!("{{application,{name},[{{applications,{needs}}}]}}.");
        folder.put(&format!("lib/{name}-1.0/ebin/{name}.app"), resource.as_bytes());
    }
    let upgrade = built_of(&[from, to]).manifest.upgrade.unwrap();
    let names: Vec<&str> = upgrade.applications.iter().map(|one| one.name.as_str()).collect();
    // A circle ends somewhere.
    assert_eq!(names, ["store", "shop", "web", "two", "one"]);
}

#[test]
fn the_same_from_folders_and_tars() {
    let releases = releases("tars");
    let first = built_of(&releases);
    let [from, to] = &releases;
    assert_eq!(built(&request(&from.tar(true), &to.tar(false))), first);
}

#[test]
fn what_an_upgrade_before_has_left_there_does_not_count() {
    let releases = releases("left");
    let first = built_of(&releases);
    application(&releases[0], "shop", "0.9.0", &[("a", 9), ("z", 9)]);
    application(&releases[0], "forgotten", "0.1.0", &[("o", 9)]);
    assert_eq!(built_of(&releases), first);
}

#[test]
fn nothing_that_runs_is_overwritten() {
    let releases = releases("overwritten");
    // Other lines are no other code.
    let lines = module("w", 1).with(b"Line", [beam::words(&[0, 0, 0, 1, 0]), vec![0x11]].concat());
    releases[1].put("lib/scales-1.0.0/ebin/w.beam", &lines.bytes());
    let first = built_of(&releases);
    releases[1].put("lib/scales-1.0.0/ebin/w.beam", &module("w", 2).bytes());
    releases[1].put("lib/kernel-8.5.3/priv/new", b"");
    let error = error_of(&releases);
    assert!(error.contains("kernel-8.5.3/priv/new, scales-1.0.0/ebin/w.beam"), "{error}");
    assert!(error.contains("raise the version"), "{error}");
    // Of what is shared the digest is that of the release that runs.
    releases[1].put("lib/scales-1.0.0/ebin/w.beam", &module("w", 1).bytes());
    fs::remove_dir_all(releases[1].0.join("lib/kernel-8.5.3/priv")).unwrap();
    assert_eq!(built_of(&releases), first);
}

#[test]
fn what_nobody_needs_who_runs_it_may_be_there_or_not() {
    let releases = releases("needed");
    // As systools leaves it out of a tarball.
    releases[0].put("lib/kernel-8.5.3/include/k.hrl", b"");
    releases[0].put("lib/kernel-8.5.3/ebin/kernel.appup", b"");
    releases[1].put("lib/kernel-8.5.3/src/k.erl", b"");
    let resource = b"{application,kernel,[{vsn,\"8.5.3\"},{modules,[k,l]}]}.";
    releases.iter().for_each(|one| one.put("lib/kernel-8.5.3/ebin/kernel.app", resource));
    releases[0].put("lib/kernel-8.5.3/ebin/stranger.beam", &module("stranger", 1).bytes());
    built_of(&releases);
    // But what is the application's own, or what only the new release has, counts.
    for (folder, name) in [(0, "l"), (1, "other")] {
        let file = format!("lib/kernel-8.5.3/ebin/{name}.beam");
        releases[folder].put(&file, &module(name, 1).bytes());
        let error = error_of(&releases);
        assert!(error.contains(&format!("kernel-8.5.3/ebin/{name}.beam")), "{error}");
        fs::remove_file(releases[folder].0.join(file)).unwrap();
    }
    releases[1].put("lib/kernel-8.5.3/include/k.hrl", b"other");
    let error = error_of(&releases);
    assert!(error.contains("kernel-8.5.3/include/k.hrl"), "{error}");
}

#[test]
fn the_script_of_the_version_that_comes_is_carried() {
    let releases = releases("script");
    for (folder, script) in
        [(0, "shop"), (0, "shop-1.0.0"), (1, "shop"), (1, "nodetool"), (1, "-1.1.0")]
    {
        releases[folder].put(&format!("bin/{script}"), b"1");
    }
    let built = built_of(&releases);
    assert!(!paths(&built.manifest).iter().any(|path| path.contains("/bin/")));
    releases[1].put("bin/shop-1.1.0", b"2");
    let built = built_of(&releases);
    let script = "releases/1.1.0/bin/shop".to_owned();
    assert!(paths(&built.manifest).contains(&script.as_str()), "{:?}", paths(&built.manifest));
    assert!(built.manifest.upgrade.unwrap().files.contains(&script));
}

#[test]
fn another_runtime_system_is_refused_and_another_elixir_is_told() {
    let releases = releases("system");
    let rel = releases[1].0.join("releases/1.1.0/shop.rel");
    let text = fs::read_to_string(&rel).unwrap();
    fs::write(&rel, text.replace("13.1.5", "14.0")).unwrap();
    let error = error_of(&releases);
    assert!(
        error.contains("shop 1.0.0 runs on ERTS 13.1.5 and shop 1.1.0 on ERTS 14.0"),
        "{error}"
    );
    fs::write(&rel, text.replace("1.14.0", "1.15.0")).unwrap();
    releases[1].put("lib/elixir-1.15.0/ebin/elixir.app", b"{application,elixir,[]}.");
    let notes = built_of(&releases).notes;
    assert!(notes.iter().any(|note| note.starts_with("elixir change: ")), "{notes:?}");
}

#[test]
fn a_patch_of_what_runs_is_made_when_told() {
    let releases = releases("in_place");
    let mut request = request(&releases[0].0, &releases[1].0);
    request.in_place = true;
    let manifest = built(&request).manifest;
    assert_eq!(manifest.upgrade, None);
    assert!(paths(&manifest).contains(&"shop-1.0.0/ebin/b.beam"), "{:?}", paths(&manifest));
    // In the manifest of a patch is nothing more than before.
    assert!(!String::from_utf8(manifest.to_json()).unwrap().contains("upgrade"));
}

#[test]
fn what_authors_have_written_counts() {
    let releases = releases("authors");
    let made = built_of(&releases).manifest.instructions;
    assert_eq!(
        made.up,
        [
            "{add_module,d}",
            "{add_module,r}",
            "{load_module,b}",
            "{delete_module,c}",
            "{delete_module,l}"
        ]
    );
    let appup = |text: &str| {
        releases[1].put("lib/shop-1.1.0/ebin/shop.appup", text.as_bytes());
        built_of(&releases)
    };
    let built = appup(
        "%% by hand\n{\"1.1.0\",\n [{\"1.0.0\",[{update,b,{advanced,x}},{add_application,rates},\
         {apply,{b,f,[]}}]}],\n [{\"0.9.0\",[]}]}.\n",
    );
    let up = &built.manifest.instructions.up;
    assert_eq!(
        up,
        &[
            "{add_module,d}",
            "{add_module,r}",
            "{delete_module,c}",
            "{delete_module,l}",
            "{update,b,{advanced,x}}",
            "{apply,{b,f,[]}}"
        ]
    );
    // It says nothing of the way back.
    assert_eq!(built.manifest.instructions.down, made.down);
    assert!(built.notes.iter().any(|note| note == "shop goes up as its own .appup says"));
    let left = "shop.appup says nothing of c, d, which change";
    assert!(built.notes.iter().any(|note| note.starts_with(left)), "{:?}", built.notes);
    // Low-level instructions, as the release handler takes them.
    let built = appup(
        "{\"1.1.0\",[{\"1.0.0\",[{load_object_code,{shop,\"1.1.0\",[b]}},point_of_no_return,\
         {suspend,[b]},{load,{b,brutal_purge,brutal_purge}},{code_change,up,[{b,[y]}]},{resume,[b]}]}],[]}.",
    );
    assert!(built.manifest.instructions.up.contains(&"{update,b,{advanced,[y]}}".to_owned()));
    assert!(!built.manifest.instructions.up.iter().any(|one| one.contains("load_module,b")));
}

#[test]
fn what_cannot_be_carried_out_is_refused_by_name() {
    let releases = releases("refused");
    let error = |text: &str| {
        releases[1].put("lib/shop-1.1.0/ebin/shop.appup", text.as_bytes());
        error_of(&releases)
    };
    let text = error("{\"1.1.0\",[{\"1.0.0\",[{stop,[b]}]}],[]}.");
    assert!(text.contains("shop.appup: {stop,[b]} is no instruction"), "{text}");
    let text = error("[].");
    assert!(text.contains("shop.appup: it is no {Vsn"), "{text}");
    // What was made by a tool is made again.
    releases[1].put("lib/shop-1.1.0/ebin/shop.appup", b"%% Made by mix hot_patch.relup, x\n[].");
    built_of(&releases);
}

#[test]
fn versions_may_be_named_by_patterns() {
    let releases = releases("patterns");
    for (versions, is_covered) in [
        (r#"<<"1\\..*">>"#, true),
        (r#"<<"^1\\.[0-9]+\\.(0|[1-9]\\d*)$">>"#, true),
        (r"<<49,46,42>>", true),
        (r#"<<"(?i)1.0.0|2">>"#, true),
        // The first match has to be all of it.
        (r#"<<"1">>"#, false),
        (r#"<<"1|1\\.0\\.0">>"#, false),
        (r#"<<"0\\.9.*">>"#, false),
        (r#""1""#, false),
    ] {
        let text = format!("{{\"1.1.0\",[{{{versions},[{{apply,{{b,f,[]}}}}]}}],[]}}.");
        releases[1].put("lib/shop-1.1.0/ebin/shop.appup", text.as_bytes());
        let built = built_of(&releases);
        let first = built.manifest.instructions.up[0] == "{apply,{b,f,[]}}";
        assert_eq!(first, is_covered, "{versions}: {:?}", built.notes);
        assert!(!built.notes.iter().any(|note| note.contains("not understood")), "{versions}");
    }
    // What reads otherwise than in OTP, or not at all, is passed over and told.
    for pattern in ["1.0.0(?=$)", "1.*+", "(", "1.0.0\\\\Z"] {
        let text = format!(
            "{{\"1.1.0\",[{{<<\"{pattern}\">>,[]}},{{\"1.0.0\",[{{apply,{{b,f,[]}}}}]}}],[]}}."
        );
        releases[1].put("lib/shop-1.1.0/ebin/shop.appup", text.as_bytes());
        let built = built_of(&releases);
        assert_eq!(built.manifest.instructions.up[0], "{apply,{b,f,[]}}", "{pattern}");
        let note =
            format!("shop.appup names versions by <<\"{pattern}\">>, which is not understood");
        assert!(built.notes.iter().any(|one| one.starts_with(&note)), "{note}\n{:?}", built.notes);
    }
}

#[test]
fn an_application_is_restarted_when_told_or_when_it_starts_otherwise() {
    let releases = releases("restarted");
    let mut request = request(&releases[0].0, &releases[1].0);
    request.restart = vec!["shop".to_owned()];
    let instructions = built(&request).manifest.instructions;
    assert!(
        [&instructions.up, &instructions.down]
            .map(|way| way.last().unwrap())
            .iter()
            .all(|one| *one == "{restart_application,shop}")
    );
    request.restart = vec!["rates".to_owned()];
    let error = try_build(&request).unwrap_err().to_string();
    assert!(error.contains("--restart rates"), "{error}");
    let other = b"{application,shop,[{vsn,\"1.1.0\"},{mod,{shop,[x]}}]}.";
    releases[1].put("lib/shop-1.1.0/ebin/shop.app", other);
    let built = built_of(&releases);
    assert_eq!(built.manifest.instructions.up.last().unwrap(), "{restart_application,shop}");
    assert!(built.notes.iter().any(|note| note.contains("another callback module")));
}

/// As systools writes it: one term, with each path as a list of bytes.
fn boot(folders: &[&str]) -> Vec<u8> {
    let mut term = b"\x83l\0\0\0\x01h\x02w\x04pathl\0\0\0".to_vec();
    term.push(folders.len() as u8);
    for folder in folders {
        let path = format!("{folder}/ebin");
        term.push(b'k');
        term.extend((path.len() as u16).to_be_bytes());
        term.extend(path.bytes());
    }
    term.extend(b"jj");
    term
}

#[test]
fn what_another_compiler_has_made_of_the_same_version_comes_beside_it() {
    let [from, to] = releases("beside");
    let rel = to.0.join("releases/1.1.0/shop.rel");
    let text = fs::read_to_string(&rel).unwrap();
    fs::write(&rel, text.replace("13.1.5", "15.2")).unwrap();
    to.put("releases/start_erl.data", b"15.2 1.1.0");
    to.put("erts-15.2/bin/beam.smp", b"vm");
    to.put("lib/scales-1.0.0/ebin/w.beam", &module("w", 2).bytes());
    let both = [from, to];
    // Nothing could be booted from another folder by this script.
    let error = error_of(&both);
    assert!(error.contains("scales-1.0.0") && error.contains("start.boot"), "{error}");
    let [from, to] = &both;
    let lib = ["$RELEASE_LIB/kernel-8.5.3", "$RELEASE_LIB/scales-1.0.0", "$RELEASE_LIB/shop-1.1.0"];
    to.put("releases/1.1.0/start.boot", &boot(&lib));
    let built = built_of(&both);
    let beside = "releases/1.1.0/lib/scales-1.0.0";
    let paths = paths(&built.manifest);
    for file in ["ebin/w.beam", "ebin/scales.app"] {
        assert!(paths.contains(&format!("{beside}/{file}").as_str()), "{paths:?}");
    }
    let upgrade = built.manifest.upgrade.as_ref().unwrap();
    let shared: Vec<&str> = upgrade.shared.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(shared, ["lib/kernel-8.5.3"]);
    assert!(upgrade.files.contains(&format!("{beside}/ebin/w.beam")));
    let own = [
        "$RELEASE_LIB/kernel-8.5.3",
        &format!("$RELEASE_LIB/../{beside}"),
        "$RELEASE_LIB/shop-1.1.0",
    ];
    let composition = read_archive(&built.zip, &Options::default()).unwrap();
    let script = composition.files.iter().find(|one| one.path.ends_with("start.boot")).unwrap();
    assert_eq!(script.sha256, hot_patch_beam::digest::sha256(&boot(&own)));
    assert!(
        built.notes.iter().any(|note| note.contains("scales-1.0.0. It comes into")),
        "{:?}",
        built.notes
    );

    // Nodes are restarted for it: neither code nor states of before are left that something could be wrong with.
    assert!(built.manifest.removed.is_empty());
    assert!(built.analysis.modules.is_empty() && built.manifest.instructions.up.is_empty());

    // From there on it is never taken for the one in `lib`, nor is that overwritten.
    fs::create_dir_all(from.0.join(beside)).unwrap();
    fs::create_dir_all(to.0.join("releases/1.1.0/lib")).unwrap();
    fs::rename(to.0.join("lib/scales-1.0.0"), to.0.join(beside)).unwrap();
    to.put("lib/scales-1.0.0/ebin/w.beam", &module("w", 1).bytes());
    let next = release("beside_next", "1.2.0", "{shop,\"1.1.0\",permanent}");
    let text = fs::read_to_string(next.0.join("releases/1.2.0/shop.rel")).unwrap();
    next.put("releases/1.2.0/shop.rel", text.replace("13.1.5", "15.2").as_bytes());
    next.put("releases/1.2.0/start.boot", &boot(&lib));
    next.put("lib/scales-1.0.0/ebin/w.beam", &module("w", 2).bytes());
    application(&next, "shop", "1.1.0", &[("a", 1), ("b", 2), ("d", 1), ("p", 1)]);
    let manifest = support::built(&request(&to.0, &next.0)).manifest;
    let paths = support::paths(&manifest);
    assert!(paths.contains(&"releases/1.2.0/lib/scales-1.0.0/ebin/w.beam"), "{paths:?}");
    let shared: Vec<String> =
        manifest.upgrade.unwrap().shared.into_iter().map(|one| one.path).collect();
    assert_eq!(shared, ["lib/kernel-8.5.3", "lib/shop-1.1.0"]);
}
