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

/// For each of the texts the functions that are another than in the first.
fn changed(texts: &[String]) -> Vec<Vec<String>> {
    let modules: Vec<[(&str, &str); 1]> = texts.iter().map(|text| [("m", text.as_str())]).collect();
    let modules: Vec<&[(&str, &str)]> = modules.iter().map(|build| build.as_slice()).collect();
    let builds = compiled::erlang_builds(&modules);
    let functions = |new| module(&compare(&builds[0], new), "m").functions.clone().unwrap().changed;
    builds[1..].iter().map(functions).collect()
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
    let texts: Vec<String> =
        std::iter::once(old).chain(cases.iter().map(|one| one.0.clone())).collect();
    for (changed, (_, expected)) in changed(&texts).iter().zip(&cases) {
        assert_eq!(changed, expected);
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
    assert!(changes.iter().all(|(from, _, _)| old.contains(from)));
    let new = changes.iter().map(|(from, to, _)| old.replace(from, to));
    let texts: Vec<String> = std::iter::once(old.clone()).chain(new).collect();
    for (changed, (from, to, function)) in changed(&texts).iter().zip(&changes) {
        assert_eq!(changed, &[*function], "{from} -> {to}");
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
    assert_eq!(
        (&m.exports_added, &m.exports_removed),
        (&vec!["h/1".to_owned()], &vec!["g/0".to_owned()])
    );
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
    let texts = [text("  def f(x), do: x"), text("\n\n\n\n  def f(x), do: {x}")];
    let builds = compiled::elixir_builds(&[&texts[0], &texts[1]]);
    let analysis = compare(&builds[0], &builds[1]);
    assert_eq!(module(&analysis, "Elixir.M").functions.as_ref().unwrap().changed, ["f/1"]);
}

/// All that OTP and Elixir have: decoded to the last function, within the limits of one analysis.
#[test]
fn every_module_of_the_machine_is_read() {
    if !compiled::has("erl") {
        return;
    }
    let modules: Vec<_> = libraries().iter().flat_map(|folder| beams(folder)).collect();
    let files: Vec<&[u8]> = modules.iter().map(|(_, file)| file.as_slice()).collect();
    // All are new: each is read as a whole.
    let request = hot_patch_core::analysis::Request { after: &files, ..Default::default() };
    let analysis = hot_patch_core::analysis::analyse(&request);
    assert_eq!(analysis.modules.len(), modules.len());
    assert!(analysis.modules.len() > 200);
    for module in &analysis.modules {
        assert!(module.functions.is_some(), "{module:?}");
    }
}

/// Where the applications of OTP have their modules, and those of Elixir if it is there.
fn libraries() -> Vec<std::path::PathBuf> {
    let ask = |program: &str, arguments: &[&str]| {
        let run = std::process::Command::new(program).args(arguments).output().ok()?;
        let said = String::from_utf8(run.stdout).ok().filter(|_| run.status.success())?;
        Some(std::path::PathBuf::from(said))
    };
    let print = "io:format(\"~ts\", [code:lib_dir()]), halt().";
    let erlang = ask("erl", &["-noshell", "-eval", print]).expect("erl says where it is");
    let elixir = ask("elixir", &["-e", "IO.write(Path.dirname(Application.app_dir(:elixir)))"]);
    let mut folders: Vec<_> = [Some(erlang), elixir]
        .iter()
        .flatten()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .map(|entry| entry.unwrap().path().join("ebin"))
        .filter(|ebin| ebin.is_dir())
        .collect();
    folders.sort();
    folders.dedup();
    let chosen = ["kernel", "stdlib", "compiler", "ssl", "elixir", "logger", "mix", "sasl"];
    folders.retain(|folder| {
        let name = folder.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        chosen.iter().any(|one| name == *one || name.starts_with(&format!("{one}-")))
    });
    folders
}
