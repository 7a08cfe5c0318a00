//! Archives whose manifest or signature is not to be believed.

use std::fmt::Write as _;

use hot_patch_core::{Kind, Options, Rule, read_archive};
use serde_json::{Value, json};

use crate::support::beam::{AtomFormat, minimal};
use crate::support::random::Random;
use crate::support::zip::{Item, build, deflated, file};
use crate::{Case, case};

const MANIFEST: &str = "hot_patch.json";
const SIGNATURE: &str = "hot_patch.sig";

pub(crate) fn cases() -> Vec<Case> {
    [forms(), contents(), settings(), covers(), signatures()].into_iter().flatten().collect()
}

pub(crate) fn module() -> Vec<u8> {
    minimal(AtomFormat::Utf8).bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// What the archive of `items` must say of itself.
pub(crate) fn good(items: &[Item]) -> Value {
    let bytes = build(items, b"").bytes;
    let composition = read_archive(&bytes, &Options::default()).unwrap();
    let files: Vec<Value> = composition
        .files
        .iter()
        .map(|file| {
            let module = match &file.kind {
                Kind::Beam(module) => json!({
                    "name": module.name(),
                    "change": "any",
                    "brings": {"md5": hex(&module.md5), "vsn": "[1]"}
                }),
                _ => Value::Null,
            };
            json!({"path": file.path, "sha256": hex(&file.sha256), "module": module})
        })
        .collect();
    json!({"schema": 1, "name": "fix", "files": files})
}

fn items() -> Vec<Item> {
    vec![file("a-1/ebin/m.beam", &module()), file("a-1/priv/rates", b"1, 2, 3")]
}

pub(crate) fn archive(items: &[Item], manifest: &[u8]) -> Vec<u8> {
    let mut all = vec![deflated(MANIFEST, manifest)];
    all.extend_from_slice(items);
    build(&all, b"").bytes
}

#[test]
fn what_the_mac_adds_needs_no_manifest_and_is_meant_where_it_is_listed() {
    let added = [deflated("a-1/priv/.DS_Store", b"Bud1"), deflated("__MACOSX/._a", b"Mac OS X")];
    let all = [&items()[..], &added].concat();
    let read = |manifest: &Value| {
        let bytes = archive(&all, manifest.to_string().as_bytes());
        let composition = read_archive(&bytes, &Options::default()).unwrap();
        let files: Vec<String> =
            composition.files.iter().map(|file| file.path.to_owned()).collect();
        let left_out: Vec<String> = composition.left_out.iter().map(|&p| p.to_owned()).collect();
        (files.len(), left_out)
    };
    let mut manifest = good(&items());
    assert_eq!(read(&manifest), (2, vec!["a-1/priv/.DS_Store".into(), "__MACOSX/._a".into()]));
    // A patch that was built with it holds it still, and vouches for it.
    let listed = |content: &[u8]| {
        let hidden = read_archive(&build(&[file("x", content)], b"").bytes, &Options::default())
            .map(|composition| hex(&composition.files[0].sha256));
        json!({"path": "a-1/priv/.DS_Store", "sha256": hidden.unwrap(), "module": null})
    };
    let files = manifest["files"].as_array_mut().unwrap();
    files.push(listed(b"Bud1"));
    assert_eq!(read(&manifest), (3, vec!["__MACOSX/._a".into()]));
    *manifest["files"].as_array_mut().unwrap().last_mut().unwrap() = listed(b"another");
    let bytes = archive(&all, manifest.to_string().as_bytes());
    let refusal = read_archive(&bytes, &Options::default()).unwrap_err();
    assert_eq!(refusal.rule, Rule::ManifestDigest);
}

/// An archive that is right but for what `change` does to its manifest.
fn with(rule: Rule, what: &'static str, change: impl FnOnce(&mut Value)) -> Case {
    let mut manifest = good(&items());
    change(&mut manifest);
    case(rule, what, archive(&items(), manifest.to_string().as_bytes()))
}

fn text(rule: Rule, what: &'static str, manifest: &str) -> Case {
    case(rule, what, archive(&items(), manifest.as_bytes()))
}

/// One setting of an application with this value.
fn setting(value: &str) -> Value {
    json!([{"application": "a", "key": "k", "value": value}])
}

#[test]
fn settings_are_accepted_as_sys_config_has_them() {
    let values = [
        "ok",
        "'Elixir.A.B'",
        "-12",
        "1.5e-3",
        "\"text \\x{e9} \\001 \\v\"",
        "<<\"gr\u{fc}n\"/utf8>>",
        "<<>>",
        "<<0, 128,255>>",
        "[{a, [b, {c, #{d => <<1>>}}]}]",
        "% from ours\n{a, % and so on\n b}",
    ];
    for value in values {
        let mut manifest = good(&items());
        manifest["config"] = setting(value);
        let bytes = archive(&items(), manifest.to_string().as_bytes());
        let read = read_archive(&bytes, &Options::default());
        assert!(read.is_ok(), "{value}: {:?}", read.err());
    }
}

fn settings() -> Vec<Case> {
    let refused = |what, config: Value| {
        with(Rule::ManifestConfig, what, |manifest| manifest["config"] = config)
    };
    let many = |count: usize, value: &str| {
        let one = |key| json!({"application": "a", "key": format!("k{key}"), "value": value});
        (0..count).map(one).collect()
    };
    vec![
        refused("a value that is no term", setting("{a")),
        refused("a value with something behind it", setting("a. b")),
        refused("a value that ends in a dot", setting("a.")),
        refused("a value that calls", setting("os:cmd(\"ls\")")),
        refused("a fun", setting("fun lists:map/2")),
        refused("a variable", setting("X")),
        refused("a byte that is none", setting("<<256>>")),
        refused("an atom that no VM takes", setting(&"a".repeat(256))),
        refused(
            "a value nested too deep",
            setting(&format!("{}{}", "[".repeat(70), "]".repeat(70))),
        ),
        refused("more settings than anybody needs", many(1_001, "1")),
        refused(
            "values larger than anybody needs",
            many(500, &format!("\"{}\"", "x".repeat(1_000))),
        ),
    ]
}

#[test]
fn the_manifest_they_are_made_from_is_accepted() {
    let bytes = archive(&items(), good(&items()).to_string().as_bytes());
    let composition = read_archive(&bytes, &Options::default()).unwrap();
    assert_eq!(composition.files.len(), 2);
    assert_eq!(composition.manifest.unwrap().manifest.name, "fix");
}

/// A manifest whose module was in another application before.
fn moving() -> Value {
    let mut manifest = good(&items());
    let version = json!({"md5": "0".repeat(32), "vsn": "[0]"});
    let module = &mut manifest["files"][0]["module"];
    module["change"] = json!("replace");
    module["replaces"] = version.clone();
    manifest["removed"] =
        json!([{"path": "b-1/ebin/m.beam", "module": {"name": "m", "replaces": version}}]);
    manifest["load_order"] = json!(["m"]);
    manifest["instructions"] = json!({"up": ["{load_module,m}"], "down": ["{load_module,m}"]});
    manifest
}

fn moving_with(rule: Rule, what: &'static str, pointer: &str, value: Value) -> Case {
    let mut manifest = moving();
    *manifest.pointer_mut(pointer).unwrap() = value;
    case(rule, what, archive(&items(), manifest.to_string().as_bytes()))
}

#[test]
fn a_module_may_move() {
    let bytes = archive(&items(), moving().to_string().as_bytes());
    let manifest = read_archive(&bytes, &Options::default()).unwrap().manifest.unwrap().manifest;
    assert_eq!(manifest.removed[0].module.as_ref().unwrap().name, "m");
}

#[test]
fn whatever_is_changed_it_ends_with_an_answer() {
    let good = good(&items()).to_string().into_bytes();
    let mut random = Random(7);
    let pieces: [&[u8]; 8] = [b"[", b"{", b"\"", b"\\u0000", b"null", b"1e999", b"\xff", b"}]"];
    let mut accepted = 0;
    for _ in 0..3_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.splice(at..at, pieces[random.below(8)].iter().copied())),
                _ => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
            }
        }
        match read_archive(&archive(&items(), &bytes), &Options::default()) {
            // Only what is of no weight can have been changed.
            Ok(composition) => {
                assert_eq!(composition.manifest.unwrap().manifest.files.len(), 2);
                accepted += 1;
            }
            Err(refusal) => assert!(refusal.rule.name().starts_with("manifest_"), "{refusal}"),
        }
    }
    assert!(accepted < 600, "{accepted}");
}

fn forms() -> Vec<Case> {
    let good = good(&items()).to_string();
    let twice = good.replacen("\"name\"", "\"name\":\"other\",\"name\"", 1);
    vec![
        text(Rule::ManifestTooBig, "4 MiB and a byte", &" ".repeat(4 * 1024 * 1024 + 1)),
        text(Rule::ManifestTooDeep, "in a field", &{
            good.replacen(
                "\"schema\"",
                &format!("\"x\":{}1{},\"schema\"", "[".repeat(17), "]".repeat(17)),
                1,
            )
        }),
        text(Rule::ManifestTooDeep, "far beyond any stack", &"[".repeat(1_000_000)),
        text(Rule::ManifestMalformed, "empty", ""),
        text(Rule::ManifestMalformed, "no JSON", "{schema: 1}"),
        text(Rule::ManifestMalformed, "not UTF-8 is no JSON", "\"\\ud800\""),
        text(Rule::ManifestMalformed, "cut off", &good[..good.len() - 1]),
        text(Rule::ManifestMalformed, "more behind it", &format!("{good}{{}}")),
        text(Rule::ManifestMalformed, "an array", "[1]"),
        text(Rule::ManifestDuplicate, "a field", &twice),
        text(Rule::ManifestDuplicate, "an unknown field", "{\"schema\":1,\"a\":1,\"a\":2}"),
        text(Rule::ManifestDuplicate, "the same, escaped", "{\"schema\":1,\"a\":1,\"\\u0061\":2}"),
    ]
}

fn contents() -> Vec<Case> {
    let set = |rule, what, pointer: &'static str, value: Value| {
        with(rule, what, |manifest| {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            manifest.pointer_mut(parent).unwrap()[field] = value;
        })
    };
    let malformed = |what, pointer, value| set(Rule::ManifestMalformed, what, pointer, value);
    let duplicate = |what, pointer, value| set(Rule::ManifestDuplicate, what, pointer, value);
    let removed = |path: &str| json!([{"path": path}]);
    let up = |what, text: &str| {
        set(Rule::ManifestInstruction, what, "/instructions", json!({"up": [text]}))
    };
    let down = |what, text: &str| {
        set(Rule::ManifestInstruction, what, "/instructions", json!({"down": [text]}))
    };
    let version = json!({"md5": "0".repeat(32), "vsn": null});
    vec![
        set(Rule::ManifestUnknownField, "above", "/transitions", json!("none")),
        set(Rule::ManifestUnknownField, "below", "/files/0/module/md5", json!("00")),
        set(Rule::ManifestSchema, "a later one", "/schema", json!(2)),
        set(Rule::ManifestSchema, "no number of ours", "/schema", json!(1.5)),
        malformed("no schema", "/schema", Value::Null),
        malformed("another type", "/files", json!({})),
        malformed("no such transition", "/transition", json!("fast")),
        malformed("a name with a slash", "/name", json!("../fix")),
        malformed("an author who clears the screen", "/author", json!("\u{1b}[2J")),
        malformed("a text turned around", "/text", json!("\u{202e}txt")),
        malformed("a very long text", "/text", json!("x".repeat(10_001))),
        malformed("a digest too short", "/files/0/sha256", json!("00")),
        malformed("a digest in capitals", "/files/0/sha256", json!("AB".repeat(32))),
        malformed("a removed file outside", "/removed", removed("../x")),
        malformed("a removed module that is not told to be one", "/removed", removed("a-1/m.beam")),
        malformed("a removed file, absolute", "/removed", removed("/etc/passwd")),
        malformed("a path outside", "/files/0/path", json!("a/../../b")),
        malformed("an empty term", "/config", {
            json!([{"application": "a", "key": "k", "value": ""}])
        }),
        up("none that is known", "{updaet,m}"),
        up("cut off", "{update,m"),
        up("far too deep", &"[".repeat(60_000)),
        up("one that is long, and invisible", &format!("'{}'", "\u{202e}".repeat(20_000))),
        up(
            "a long one that does not fit",
            &format!("{{update,m2,{{advanced,\"{}\"}}}}", "\n".repeat(9_000)),
        ),
        up("a module that is not there", "{load_module,n}"),
        up("a module that does not go", "{delete_module,m}"),
        up("a name that hides", "{apply,{m,'\u{202e}f',[]}}"),
        up("an atom too long", &format!("{{apply,{{m,f,['{}']}}}}", "x".repeat(256))),
        up("a float beyond all bounds", "{apply,{m,f,[1.0e999]}}"),
        up("a restart of the node", "restart_emulator"),
        up("the end of HotPatch", "{remove_application,hot_patch}"),
        down("a module that does not come back", "{add_module,m}"),
        down("a restart of the node, back", "restart_new_emulator"),
        set(Rule::ManifestInstruction, "far too many", "/instructions", {
            json!({"up": vec!["{update,m}"; 1_001]})
        }),
        malformed("a base that does not count", "/files/0/module/replaces", version),
        malformed("no base", "/files/0/module/change", json!("replace")),
        malformed("an order of others", "/load_order", json!(["m", "n"])),
        duplicate("a module in the order", "/load_order", json!(["m", "m"])),
        duplicate("a file that comes and goes", "/removed", removed("a-1/priv/rates")),
        moving_with(
            Rule::ManifestMalformed,
            "a module that goes in a version and is replaced in another",
            "/removed/0/module/replaces/vsn",
            json!("[1]"),
        ),
        moving_with(Rule::ManifestInstruction, "one that moves is not new", "/instructions", {
            json!({"up": ["{add_module,m}"]})
        }),
        moving_with(Rule::ManifestInstruction, "one that moves does not go", "/instructions", {
            json!({"up": ["{delete_module,m}"]})
        }),
        with(Rule::ManifestMalformed, "a module that comes as a new one and goes", |manifest| {
            manifest["removed"] = moving()["removed"].clone();
        }),
        with(Rule::ManifestDuplicate, "a module that goes from two places", |manifest| {
            let first = json!({"name": "n", "replaces": {"md5": "0".repeat(32)}});
            manifest["removed"] = json!([
                {"path": "a-1/ebin/n.beam", "module": first},
                {"path": "b-1/ebin/n.beam", "module": first}
            ]);
        }),
        with(Rule::ManifestDuplicate, "a file", |manifest| {
            let first = manifest["files"][1].clone();
            manifest["files"].as_array_mut().unwrap().push(first);
        }),
        with(Rule::ManifestDuplicate, "a module", |manifest| {
            let mut second = manifest["files"][0].clone();
            second["path"] = json!("b-1/ebin/m.beam");
            manifest["files"].as_array_mut().unwrap().push(second);
        }),
    ]
}

fn covers() -> Vec<Case> {
    let all = items();
    let more = [all.clone(), vec![file("b", b"another")]].concat();
    let other = [all[0].clone(), file("a-1/priv/rates", b"1, 2, 4")];
    let manifest = good(&all).to_string();
    vec![
        case(Rule::ManifestUnlisted, "one more", archive(&more, manifest.as_bytes())),
        case(Rule::ManifestMissing, "one less", archive(&all[..1], manifest.as_bytes())),
        case(Rule::ManifestDigest, "another", archive(&other, manifest.as_bytes())),
        with(Rule::ManifestModule, "another name", |manifest| {
            manifest["files"][0]["module"]["name"] = json!("n");
        }),
        with(Rule::ManifestModule, "another MD5", |manifest| {
            manifest["files"][0]["module"]["brings"]["md5"] = json!("0".repeat(32));
        }),
        with(Rule::ManifestModule, "another vsn", |manifest| {
            manifest["files"][0]["module"]["brings"]["vsn"] = json!("[2]");
        }),
        with(Rule::ManifestModule, "not told to be one", |manifest| {
            manifest["files"][0]["module"] = Value::Null;
        }),
        with(Rule::ManifestModule, "told to be one", |manifest| {
            let mut module = manifest["files"][0]["module"].clone();
            module["name"] = json!("rates");
            manifest["files"][1]["module"] = module;
        }),
    ]
}

fn signatures() -> Vec<Case> {
    let signature = json!({
        "algorithm": "ed25519",
        "key": format!("{}=", "A".repeat(43)),
        "name": "alice",
        "signature": format!("{}==", "A".repeat(86)),
    });
    let signed = |what, signature: &str| {
        let manifest = good(&items()).to_string();
        let all = [vec![file(SIGNATURE, signature.as_bytes())], items()].concat();
        case(Rule::SignatureMalformed, what, archive(&all, manifest.as_bytes()))
    };
    let with = |what, field: &str, value: &str| {
        let mut signature = signature.clone();
        signature[field] = json!(value);
        signed(what, &signature.to_string())
    };
    let alone = [items(), vec![file(SIGNATURE, signature.to_string().as_bytes())]].concat();
    vec![
        case(Rule::SignatureAlone, "no manifest", build(&alone, b"").bytes),
        signed("empty", ""),
        signed("no JSON", "-----BEGIN"),
        with("another algorithm", "algorithm", "none"),
        with("a short key", "key", "AAAA"),
        with("a short signature", "signature", "AAAA"),
        with("no Base64", "key", &format!("{}=", "!".repeat(43))),
        with("a name of two lines", "name", "alice\nbob"),
        with("an unknown field", "comment", "trust me"),
    ]
}
