//! Archives that say of themselves that they are an upgrade, and would put files where no upgrade
//! puts any, or leave a system that does not start.

use hot_patch_core::{Kind, Options, Rule, read_archive};
use serde_json::{Value, json};

use crate::manifest::{archive, good, module};
use crate::support::zip::{Item, file};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [sayings(), places()].into_iter().flatten().collect()
}

/// Of the shop 1.1.0, whose application goes from 1.0.0 to 1.1.0.
fn items() -> Vec<Item> {
    let own = |path: &str| file(path, b"x");
    vec![
        file("lib/a-1.1.0/ebin/m.beam", &module()),
        own("lib/a-1.1.0/ebin/a.app"),
        own("releases/1.1.0/start.boot"),
        own("releases/1.1.0/shop.rel"),
    ]
}

fn upgrade(items: &[Item]) -> Value {
    let mut manifest = good(items);
    let files = manifest["files"].as_array().unwrap().iter().map(|file| &file["path"]);
    let own: Vec<Value> = files
        .filter(|path| path.as_str().unwrap().starts_with("releases/1.1.0/"))
        .cloned()
        .collect();
    manifest["release"] = json!({"name": "shop", "version": "1.0.0"});
    manifest["upgrade"] = json!({
        "to": "1.1.0",
        "erts": "13.1.5",
        "applications": [{"name": "a", "from": "1.0.0", "to": "1.1.0", "type": "permanent"}],
        "shared": [{"path": "lib/b-2.0.0", "sha256": "ab".repeat(32)}],
        "files": own,
    });
    manifest
}

fn bytes(items: &[Item], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = upgrade(items);
    change(&mut manifest);
    archive(items, manifest.to_string().as_bytes())
}

fn with(what: &'static str, change: impl FnOnce(&mut Value)) -> Case {
    case(Rule::ManifestUpgrade, what, bytes(&items(), change))
}

fn sayings() -> Vec<Case> {
    let set = |what, field: &'static str, value: Value| {
        with(what, move |manifest| manifest["upgrade"][field] = value)
    };
    let application = |what, field: &'static str, value: Value| {
        with(what, move |manifest| manifest["upgrade"]["applications"][0][field] = value)
    };
    let shared = |what, path: &'static str| {
        with(what, move |manifest| manifest["upgrade"]["shared"][0]["path"] = json!(path))
    };
    let twice = |what, field: &'static str| {
        with(what, move |manifest| {
            let all = manifest["upgrade"][field].as_array_mut().unwrap();
            all.push(all[0].clone());
        })
    };
    vec![
        with("no release that it starts from", |manifest| manifest["release"] = Value::Null),
        with("from a version to itself", |manifest| {
            manifest["release"]["version"] = json!("1.1.0");
        }),
        with("settings beside those of the release", |manifest| {
            manifest["config"] = json!([{"application": "a", "key": "k", "value": "1"}]);
        }),
        set("a version that leads out", "to", json!("../1.1.0")),
        set("a version that is a folder above", "to", json!("..")),
        set("no version", "to", json!("")),
        set("a remark of two lines", "remarks", json!(["all is well\n$ "])),
        set("a remark that turns the text around it", "remarks", json!(["\u{202e}lla"])),
        set("an empty remark", "remarks", json!([""])),
        set("a remark without end", "remarks", json!(["x".repeat(1_001)])),
        set("remarks without end", "remarks", json!(vec!["x"; 1_001])),
        set("a runtime system that is no version", "erts", json!("13/1")),
        application("a name with a path in it", "name", json!("a/../b")),
        application("an application that does not change", "from", json!("1.1.0")),
        application("an application without a way to start it", "type", Value::Null),
        application("a version of an application that leads out", "from", json!("../x")),
        twice("an application twice", "applications"),
        twice("a folder twice", "shared"),
        twice("a file of the release twice", "files"),
        shared("a shared folder that leads out", "lib/../b"),
        shared("a shared folder that is none of an application", "b-2.0.0"),
        shared("a shared file", "lib/b-2.0.0/ebin"),
        shared("a shared folder that comes", "lib/a-1.1.0"),
        set("fewer files of the release than there are", "files", json!([])),
    ]
}

fn places() -> Vec<Case> {
    let more = |what, path: &str| {
        let items = [items(), vec![file(path, b"x")]].concat();
        case(Rule::ManifestUpgrade, what, bytes(&items, |_| ()))
    };
    let without = |what, path: &str| {
        let mut items = items();
        items.retain(|item| item.name != path.as_bytes());
        case(Rule::ManifestUpgrade, what, bytes(&items, |_| ()))
    };
    let removes = |what, path: &'static str, module: Value| {
        with(what, move |manifest| manifest["removed"] = json!([{"path": path, "module": module}]))
    };
    let gone = json!({"name": "n", "replaces": {"md5": "00".repeat(16), "vsn": null}});
    vec![
        more("a file of the release that runs", "releases/1.0.0/sys.config"),
        more("what says which release boots", "releases/start_erl.data"),
        more("a program", "bin/shop"),
        more("a runtime system", "erts-13.1.5/bin/beam.smp"),
        more("a file of the version that runs", "lib/a-1.0.0/priv/x"),
        more("a file of an application that is shared", "lib/b-2.0.0/priv/x"),
        more("a file of no application", "lib/c-1.0.0/priv/x"),
        more("a file in the folder of all", "lib/x"),
        without("no boot script", "releases/1.1.0/start.boot"),
        without("no description of the release", "releases/1.1.0/shop.rel"),
        without("no resource file", "lib/a-1.1.0/ebin/a.app"),
        removes("takes away a module of the new release", "lib/a-1.1.0/ebin/n.beam", gone.clone()),
        removes("takes away a module of another", "lib/b-2.0.0/ebin/n.beam", gone),
        removes("takes away what is no module", "lib/a-1.0.0/priv/x", Value::Null),
    ]
}

#[test]
fn what_is_right_is_accepted() {
    let read = |items: &[Item], change: &dyn Fn(&mut Value)| {
        let bytes = bytes(items, change);
        let read = read_archive(&bytes, &Options::default());
        read.map(|read| read.files.into_iter().map(|file| file.kind).collect::<Vec<_>>())
    };
    assert!(read(&items(), &|_| ()).is_ok());
    // A module leaves memory from where it was.
    let gone = json!([{"path": "lib/a-1.0.0/ebin/n.beam", "module":
        {"name": "n", "replaces": {"md5": "00".repeat(16), "vsn": null}}}]);
    assert!(read(&items(), &|manifest| manifest["removed"] = gone.clone()).is_ok());
    // What is only put on disk is no module, and is not said to be one.
    let data = [items(), vec![file("lib/a-1.1.0/priv/m.beam", &module())]].concat();
    let last = data.len() - 1;
    let said = read(&data, &|_| ()).unwrap_err();
    assert_eq!(said.rule, Rule::ManifestDuplicate);
    let kinds = read(&data, &|manifest| manifest["files"][last]["module"] = Value::Null).unwrap();
    assert!(matches!(kinds[0], Kind::Beam(_)));
    assert_eq!(kinds[last], Kind::Other);
}
