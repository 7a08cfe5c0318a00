//! Which functions are another than before.

use crate::support::compiled::{self, beams, erlang};
use crate::{compare, module};

/// Functions of all sorts; `first` and `last` stand before and behind them.
fn text(first: &str, last: &str) -> String {
    format!(
        r#"-export([f/1, g/1, h/2, bits/1, maps/1, big/0, first/1, last/1]).
first(X) -> {first}.
f([X | Rest]) -> [X + 1 | f(Rest)];
f([]) -> lists:map(fun(Y) -> g(Y) end, [1, 2, 3]).
g(a) -> {{literal, "of", <<"some">>, parts}};
g(X) when is_atom(X) -> atom_to_list(X);
g(X) -> try h(X, 1) catch error:R -> {{failed, R}} end.
h(X, Y) -> [{{A, B}} || A <- [X], B <- [Y], A > B].
bits(<<"head", X:16, Rest/binary>>) -> <<"tail", X:16, "more", Rest/binary>>;
bits(X) -> <<X/utf8, "end">>.
maps(#{{key := V}} = M) -> M#{{key := {{V}}, other => #{{z => 1, a => 2}}}}.
big() -> 123456789012345678901234567890.
last(X) -> {last}.
"#
    )
}

fn changed(before: &str, after: &str) -> Vec<String> {
    let build = |text: &str| erlang(&[("m", text)]);
    let analysis = compare(&build(before), &build(after));
    module(&analysis, "m").functions.clone().unwrap().changed
}

#[test]
fn only_the_one_that_was_changed_however_all_is_numbered() {
    if !compiled::has("erlc") {
        return;
    }
    let old = text("X", "X");
    let cases = [
        // Lines only: the digest of the module is the same, so another function changes too.
        (text("\n\n\nX", "{X}"), ["last/1"].as_slice()),
        // Atoms, literals, strings and imports before all others.
        (
            text(r#"{aaa, [{0, "aaa"}, #{b => c}], <<"zero", X/binary>>, ets:info(X)}"#, "X"),
            ["first/1"].as_slice(),
        ),
        // Funs and labels before all others.
        (
            text("F = fun(Y) -> {X, Y} end, case X of 1 -> F(2); 2 -> F; _ -> F(1) end", "X"),
            ["first/1"].as_slice(),
        ),
        (text("X", "fun() -> lists:reverse([X, 77, \"other\"]) end"), ["last/1"].as_slice()),
    ];
    for (new, expected) in cases {
        assert_eq!(changed(&old, &new), expected);
    }
}

#[test]
fn every_small_change_is_seen() {
    if !compiled::has("erlc") {
        return;
    }
    let old = text("X", "X");
    let changes = [
        ("X + 1", "X + 2", "f/1"),
        ("g(Y) end", "g({Y}) end", "f/1"),
        ("[1, 2, 3]", "[1, 2, 4]", "f/1"),
        ("lists:map(", "lists:foreach(", "f/1"),
        (r#""of""#, r#""on""#, "g/1"),
        ("h(X, 1)", "h(X, 2)", "g/1"),
        ("error:R", "exit:R", "g/1"),
        ("A > B", "A >= B", "h/2"),
        ("<<\"head\"", "<<\"heat\"", "bits/1"),
        ("\"more\"", "\"mode\"", "bits/1"),
        ("X:16, \"more", "X:24, \"more", "bits/1"),
        ("\"end\"", "\"And\"", "bits/1"),
        ("other =>", "another =>", "maps/1"),
        ("a => 2", "a => 3", "maps/1"),
        ("67890.", "67891.", "big/0"),
    ];
    for (from, to, function) in changes {
        assert!(old.contains(from), "{from}");
        assert_eq!(changed(&old, &old.replace(from, to)), [function], "{from} -> {to}");
    }
}

#[test]
fn functions_that_come_and_go() {
    if !compiled::has("erlc") {
        return;
    }
    let build = |text: &str| erlang(&[("m", text)]);
    let old = build("-export([f/0, g/0]).\nf() -> g().\ng() -> 1.");
    let new = build("-export([f/0, h/1]).\nf() -> h(2).\nh(X) -> X.");
    let analysis = compare(&old, &new);
    let m = module(&analysis, "m");
    let functions = m.functions.as_ref().unwrap();
    assert_eq!(functions.added, ["h/1"]);
    assert_eq!(functions.removed, ["g/0"]);
    assert_eq!(functions.changed, ["f/0"]);
    assert_eq!((&m.exports_added, &m.exports_removed), (&vec!["h/1".to_owned()], &vec!["g/0".to_owned()]));
}

#[test]
fn lines_in_log_messages_are_no_change() {
    if !compiled::has("elixirc") {
        return;
    }
    let text = |first: &str| {
        format!(
            "defmodule M do\n  require Logger\n{first}\n  def g(x), do: Logger.error([\"bad\", x])\nend"
        )
    };
    let old = compiled::elixir(&text("  def f(x), do: x"));
    let new = compiled::elixir(&text("\n\n\n\n  def f(x), do: {x}"));
    let analysis = compare(&old, &new);
    assert_eq!(module(&analysis, "Elixir.M").functions.as_ref().unwrap().changed, ["f/1"]);
}

/// All that OTP and Elixir have: decoded to the last function, and equal to themselves.
#[test]
fn every_module_of_the_machine_is_read() {
    let mut folders: Vec<_> = ["/usr/lib/erlang/lib", "/usr/lib/elixir/lib"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .map(|entry| entry.unwrap().path().join("ebin"))
        .filter(|ebin| ebin.is_dir())
        .collect();
    folders.sort();
    let chosen = ["kernel", "stdlib", "compiler", "ssl", "elixir", "logger", "mix", "sasl"];
    folders.retain(|folder| {
        let name = folder.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        chosen.iter().any(|one| name == *one || name.starts_with(&format!("{one}-")))
    });
    let modules: Vec<_> = folders.iter().flat_map(|folder| beams(folder)).collect();
    let files: Vec<&[u8]> = modules.iter().map(|(_, file)| file.as_slice()).collect();
    // All are new: each is read as a whole.
    let request = hot_patch_core::analysis::Request { after: &files, ..Default::default() };
    let analysis = hot_patch_core::analysis::analyse(&request);
    assert_eq!(analysis.modules.len(), modules.len());
    for module in &analysis.modules {
        assert!(module.functions.as_ref().is_some_and(|all| !all.added.is_empty()), "{module:?}");
    }
}
