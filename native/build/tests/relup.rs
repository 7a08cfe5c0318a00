//! Upgrades whose release has a relup, and what low-level instructions come to.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[allow(dead_code, unreachable_pub)]
#[path = "../../beam/tests/support/beam.rs"]
mod beam;
#[allow(dead_code)]
mod support;

use hot_patch_build::Built;
use hot_patch_core::manifest::Relup;
use hot_patch_core::{Options, read_archive};
use support::shop::{SYSTEM, application, built_of, error_of, releases};
use support::{Folder, built, request};

/// Of the two releases `a` stays, `b` changes, `c` goes and `d` comes; `legacy` goes, `rates` comes.
fn relup(releases: &[Folder; 2], up: &str, down: &str) {
    let text = format!(
        "%% coding: utf-8\n{{\"1.1.0\",\n [{{\"1.0.0\",[],{up}}}],\n [{{\"1.0.0\",[],{down}}}]}}.\n"
    );
    releases[1].put("releases/1.1.0/relup", text.as_bytes());
}

fn both(up: bool, down: bool) -> Option<Relup> {
    Some(Relup { up, down })
}

fn way(built: &Built) -> Option<Relup> {
    built.manifest.upgrade.as_ref().unwrap().relup
}

/// Whether something begins so among what is told, to who builds it as to who applies it.
fn says(built: &Built, begin: &str) -> bool {
    let remarks = &built.manifest.upgrade.as_ref().unwrap().remarks;
    assert!(remarks.iter().all(|remark| built.notes.contains(remark)), "{remarks:?}");
    remarks.iter().any(|remark| remark.starts_with(begin))
}

/// As systools makes it of `{apply,...}, {update, b, {advanced, Extra}}` and applications that come and go.
const WHOLE_UP: &str = "[{load_object_code,{rates,\"0.1.0\",[r]}},{load_object_code,{shop,\"1.1.0\",[b,d]}},
    point_of_no_return,
    {load,{r,brutal_purge,brutal_purge}},{apply,{application,start,[rates,temporary]}},
    {apply,{b,prepare,[x]}},
    {load,{d,brutal_purge,brutal_purge}},
    {suspend,[{b,5000}]},{load,{b,soft_purge,brutal_purge}},{code_change,up,[{b,[{rate,1}]}]},{resume,[b]},
    {remove,{c,brutal_purge,brutal_purge}},{purge,[c]},
    {apply,{b,done,[]}},
    {apply,{application,stop,[legacy]}},{remove,{l,brutal_purge,brutal_purge}},{purge,[l]},
    {apply,{application,unload,[legacy]}}]";

const WHOLE_DOWN: &str = "[point_of_no_return,
    {load,{l,brutal_purge,brutal_purge}},{apply,{application,start,[legacy,permanent]}},
    {suspend,[b]},{code_change,down,[{b,y}]},{load,{b,soft_purge,soft_purge}},{resume,[b]},
    {remove,{d,brutal_purge,brutal_purge}},{load,{c,brutal_purge,brutal_purge}},
    {apply,{application,stop,[rates]}},{remove,{r,brutal_purge,brutal_purge}},
    {apply,{application,unload,[rates]}}]";

#[test]
fn what_it_says_is_followed_on_both_ways() {
    let releases = releases("relup_followed");
    relup(&releases, WHOLE_UP, WHOLE_DOWN);
    // What its own appup says does not count besides.
    releases[1].put(
        "lib/shop-1.1.0/ebin/shop.appup",
        b"{\"1.1.0\",[{\"1.0.0\",[{apply,{b,other,[]}}]}],[]}.",
    );
    let built = built_of(&releases);
    assert_eq!(way(&built), both(true, true));
    assert_eq!(
        built.manifest.instructions.up,
        [
            "{apply,{b,prepare,[x]}}",
            "{add_module,d}",
            "{add_module,r}",
            "{update,b,5000,{advanced,[{rate,1}]},soft_purge,brutal_purge,[]}",
            "{delete_module,c}",
            "{apply,{b,done,[]}}",
            "{delete_module,l}",
        ]
    );
    assert_eq!(
        built.manifest.instructions.down,
        [
            "{add_module,c}",
            "{add_module,l}",
            "{update,b,{advanced,y},soft_purge,soft_purge,[]}",
            "{delete_module,d}",
            "{delete_module,r}",
        ]
    );
    assert!(says(&built, "the way up is as releases/1.1.0/relup says"));
    assert!(says(&built, "the way back is as releases/1.1.0/relup says"));
    let early = "releases/1.1.0/relup: b:prepare is called before anything changes, and so before rates starts";
    assert!(says(&built, early), "{:?}", built.notes);
    assert_eq!(built.notes.len(), 3, "{:?}", built.notes);
}

#[test]
fn where_it_has_not_the_way_the_appups_count_and_that_is_said() {
    let releases = releases("relup_elsewhere");
    let made = built_of(&releases);
    assert_eq!((way(&made), &made.manifest.upgrade.as_ref().unwrap().remarks), (None, &vec![]));
    let put = |text: &str| releases[1].put("releases/1.1.0/relup", text.as_bytes());
    put("{\"1.1.0\",[{\"0.9.0\",[],[{load,{x,soft_purge,soft_purge}}]}],[]}.");
    let built = built_of(&releases);
    assert_eq!(built.manifest.instructions, made.manifest.instructions);
    assert_eq!(way(&built), both(false, false));
    assert!(says(
        &built,
        "releases/1.1.0/relup does not lead from 1.0.0, and is not used for that"
    ));
    assert!(says(&built, "releases/1.1.0/relup does not lead back to 1.0.0"));
    put("{\"1.1.0\",[{\"1.0.0\",\"text\",[{apply,{b,f,[]}}]}],[]}. %% one way");
    let built = built_of(&releases);
    assert_eq!(way(&built), both(true, false));
    assert_eq!(built.manifest.instructions.up[0], "{apply,{b,f,[]}}");
    assert_eq!(built.manifest.instructions.down, made.manifest.instructions.down);
    put("{\"1.0.9\",[{\"1.0.0\",[],[]}],[]}.");
    assert!(says(&built_of(&releases), "releases/1.1.0/relup is of 1.0.9, and is not used"));
}

#[test]
fn the_way_to_an_older_version_is_that_of_the_former_release() {
    let releases = releases("relup_back");
    relup(&releases, WHOLE_UP, WHOLE_DOWN);
    let built = built(&request(&releases[1].0, &releases[0].0));
    assert_eq!(way(&built), both(true, true));
    assert!(says(&built, "the way up is as releases/1.1.0/relup says"));
    assert!(built.manifest.instructions.up.iter().any(|one| one.contains("{advanced,y}")));
    assert!(built.manifest.instructions.down.iter().any(|one| one.contains("{rate,1}")));
}

#[test]
fn what_it_says_otherwise_than_the_release_is_named() {
    let releases = releases("relup_otherwise");
    relup(
        &releases,
        "[{sync_nodes,shop,[a@h]},{sync_nodes,shop,{b,nodes,[1]}},{suspend,[a]},{resume,[a]},
          {code_change,[{a,x}]},{load,{w,soft_purge,soft_purge}},
          {apply,{application,start,[rates,permanent]}}]",
        "[]",
    );
    let mut request = request(&releases[0].0, &releases[1].0);
    request.restart = vec!["shop".to_owned()];
    let built = built(&request);
    let file = "releases/1.1.0/relup";
    for told in [
        format!("{file}: {{sync_nodes,shop,[a@h]}} is not needed, as all nodes change in one step"),
        format!(
            "{file}: {{sync_nodes,shop,{{b,nodes,[1]}}}} is not needed, as all nodes change in one \
             step, and b:nodes/1 is not called"
        ),
        format!("{file}: rates is started as the release says, temporary, and not permanent"),
        format!(
            "{file}: a is the same in both releases: it is not loaded again, and {{update,a,{{advanced,x}},soft_purge,soft_purge,[]}} is not followed"
        ),
        format!("{file} says nothing of b, c, d, l, r, which change"),
        format!("{file} does not name legacy among those to stop"),
        format!("--restart shop does not count: {file} says how it changes"),
    ] {
        assert!(says(&built, &told), "{told}\n{:#?}", built.notes);
    }
    // Unlike what changes with others, and is held for it.
    relup(&releases, "[{suspend,[a]},{resume,[a]}]", "[]");
    assert!(says(&built_of(&releases), "releases/1.1.0/relup: the processes of a are not held"));
    // For what it does not say counts what the analysis finds.
    assert!(built.manifest.instructions.up.contains(&"{load_module,b}".to_owned()));
    assert!(!built.manifest.instructions.up.iter().any(|one| one.contains("restart_application")));
}

#[test]
fn an_application_that_is_stopped_and_started_is_restarted() {
    let releases = releases("relup_restarts");
    let restart = |name: &str, modules: &str| {
        format!(
            "{{apply,{{application,stop,[{name}]}}}},{{remove,{{{modules},brutal_purge,brutal_purge}}}},\
             {{purge,[{modules}]}},{{load,{{{modules},brutal_purge,brutal_purge}}}},\
             {{apply,{{application,start,[{name},permanent]}}}}"
        )
    };
    let up = format!("[{},{}]", restart("shop", "b"), restart("scales", "w"));
    relup(
        &releases,
        &up,
        "[{apply,{application,start,[other]}},{apply,{application,stop,[other]}}]",
    );
    let instructions = built_of(&releases).manifest.instructions;
    assert_eq!(
        instructions.up[4..],
        ["{restart_application,shop}", "{load_module,b}", "{restart_application,scales}"]
    );
    // Of what neither comes nor goes the calls stay calls.
    assert_eq!(
        instructions.down[..2],
        ["{apply,{application,start,[other]}}", "{apply,{application,stop,[other]}}"]
    );
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    let releases = releases("relup_refused");
    let deep = format!("[{{apply,{{b,f,[{}{}]}}}}]", "[".repeat(70), "]".repeat(70));
    for (up, why) in [
        ("[{stop,[b]},{start,[b]}]", "{stop,[b]} is no instruction that is carried out here"),
        ("[mnesia_backup]", "mnesia_backup is no instruction"),
        ("[restart_emulator]", "restart_emulator restarts the VM, which no live upgrade does"),
        ("[restart_new_emulator]", "restart_new_emulator restarts the VM"),
        ("[{load,{b,kill,soft_purge}}]", "{load,{b,kill,soft_purge}} is no instruction"),
        (
            "[{code_change,[{b,1}]},{code_change,[{b,2}]}]",
            "{code_change,[{b,2}]} is no instruction",
        ),
        (
            "[{load,{nope,soft_purge,soft_purge}}]",
            "for nope, which the release to which it leads does not have",
        ),
        ("[{remove,{b,soft_purge,soft_purge}}]", "for b, which the release to which it leads has"),
        (
            "[{load_object_code,{shop,\"1.0.9\",[b]}}]",
            "it loads modules of shop 1.0.9, and shop is 1.1.0 in the release to which it leads",
        ),
        ("[{load_object_code,{till,\"1\",[]}}]", "the release to which it leads has no till"),
        ("{no,list}", "it is no {Vsn, [{UpFrom, Text, Instructions}]"),
        (deep.as_str(), "is nested deeper than 64"),
        ("[F]", "a term is expected"),
    ] {
        relup(&releases, up, "[]");
        let error = error_of(&releases);
        assert!(
            error.starts_with("releases/1.1.0/relup: ") && error.contains(why),
            "{up}\n{error}"
        );
    }
    let long = format!("[{{apply,{{b,f,[\"{}\"]}}}}]", "x".repeat(1024 * 1024));
    relup(&releases, &long, "[]");
    assert!(error_of(&releases).contains("more than 1048576 bytes"));
}

#[test]
fn remarks_have_bounds() {
    let releases = releases("relup_remarks");
    let waits = format!("{{sync_nodes,'{}',[]}},", "\\x{202e}é".repeat(80)).repeat(1_100);
    relup(&releases, &format!("[{waits}{{load,{{b,soft_purge,soft_purge}}}}]"), "[]");
    let built = built_of(&releases);
    let remarks = &built.manifest.upgrade.as_ref().unwrap().remarks;
    assert_eq!(remarks.len(), 1_000);
    assert!(remarks[999].starts_with("there are 1"), "{}", remarks[999]);
    assert!(read_archive(&built.zip, &Options::default()).is_ok());
}

#[test]
fn its_encoding_is_as_for_file_consult() {
    let releases = releases("relup_encoding");
    let put = |comment: &[u8]| {
        let before =
            b"\n{\"1.1.0\",[{\"1.0.0\",[],[{suspend,[b]},{load,{b,soft_purge,soft_purge}},\
                       {code_change,up,[{b,\"";
        let text = [comment, before, b"\xe4", b"\"}]}]}],[]}."].concat();
        releases[1].put("releases/1.1.0/relup", &text);
    };
    put(b"%% -*- coding: latin-1 -*-");
    let up = built_of(&releases).manifest.instructions.up;
    assert!(
        up.contains(&"{update,b,{advanced,\"ä\"},soft_purge,soft_purge,[]}".to_owned()),
        "{up:?}"
    );
    put(b"%% by hand");
    assert!(error_of(&releases).contains("text in UTF-8 is expected at byte"));
}

#[test]
fn an_upgrade_by_restarts_follows_none() {
    let releases = releases("relup_restarting");
    relup(&releases, "[restart_new_emulator,{stop,[b]}]", "[restart_new_emulator]");
    let rel = format!(
        "{{release,{{\"shop\",\"1.1.0\"}},{{erts,\"13.1.5\"}},[{},{{rates,\"0.1.0\",temporary}},{{shop,\"1.1.0\"}}]}}.",
        SYSTEM.replace("{elixir,\"1.14.0\"}", "{elixir,\"1.15.0\"}")
    );
    for (folder, vsn) in releases.iter().zip(["1.14.0", "1.15.0"]) {
        application(folder, "elixir", vsn, &[("e", 1)]);
    }
    releases[1].put("releases/1.1.0/shop.rel", rel.as_bytes());
    let built = built_of(&releases);
    assert_eq!(way(&built), both(false, false));
    assert!(says(
        &built,
        "the relup of the new release is not used: the upgrade comes by restarts"
    ));
}

/// Low-level instructions of an appup come to the same; so do calls before the first of them.
#[test]
fn an_appup_may_have_them_too() {
    let releases = releases("relup_appup");
    let put = |up: &str| {
        let text = format!("{{\"1.1.0\",[{{\"1.0.0\",{up}}}],[]}}.");
        releases[1].put("lib/shop-1.1.0/ebin/shop.appup", text.as_bytes());
        built_of(&releases)
    };
    let built = put(
        "[{apply,{b,f,[]}},{sync_nodes,x,[]},{load,{b,soft_purge,soft_purge}},{apply,{b,g,[]}}]",
    );
    let up = &built.manifest.instructions.up;
    assert_eq!(up.first().map(String::as_str), Some("{apply,{b,f,[]}}"));
    assert_eq!(
        up[up.len() - 2..],
        ["{load_module,b,soft_purge,soft_purge,[]}", "{apply,{b,g,[]}}"]
    );
    assert!(says(&built, "shop.appup: {sync_nodes,x,[]} is not needed"));
    assert_eq!(way(&built), None);
    // Whom it calls decides where the order cannot.
    let up = put("[{update,b},{apply,{c,bye,[]}}]").manifest.instructions.up;
    assert_eq!(up[0], "{apply,{c,bye,[]}}");
    let up = put("[{apply,{d,hello,[]}},{update,b}]").manifest.instructions.up;
    assert_ne!(up[0], "{apply,{d,hello,[]}}");
    let up = put("[{remove_module,c,soft_purge,soft_purge,[]}]").manifest.instructions.up;
    assert_eq!(up.last().map(String::as_str), Some("{delete_module,c}"));
    // A supervisor that is the same may have other children.
    let up = put("[{update,a,supervisor}]").manifest.instructions.up;
    assert!(up.contains(&"{update,a,{supervisor,children}}".to_owned()), "{up:?}");
}
