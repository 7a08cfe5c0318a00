//! Whether a change is better made in two steps.

use crate::compare;
use crate::support::compiled;

const SERVER: &str = r#"-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2, code_change/3, all/0]).
init(_) -> {ok, STATE}.
handle_call(_, _, S) -> {reply, helper:rate(S), S}.
handle_cast(_, S) -> {noreply, S}.
all() -> ACROSS.
code_change(_, S, _) -> {ok, {S, STATE}}.
"#;

fn server(state: &str, across: &str) -> String {
    SERVER.replace("STATE", state).replace("ACROSS", across)
}

#[test]
fn what_processes_call_and_what_changes_with_them_comes_first() {
    if !compiled::has("erlc") {
        return;
    }
    let old = server("{one}", "ok");
    let new = server("{one, two}", "erpc:call(node(), server, all, [])");
    let (of_old, of_new) =
        ("-export([rate/1]).\nrate({one}) -> 1.\n", "-export([rate/1]).\nrate(_) -> deep:f().\n");
    let tied = "-export([rate/1]).\nrate(_) -> server:all().\n";
    let (deep_old, deep_new) = ("-export([f/0]).\nf() -> 1.\n", "-export([f/0]).\nf() -> 2.\n");
    let aside = "-export([g/0]).\ng() -> 3.\n";
    let builds = compiled::erlang_builds(&[
        &[("server", old.as_str()), ("helper", of_old), ("deep", deep_old)],
        &[("server", new.as_str()), ("helper", of_new), ("deep", deep_new), ("aside", aside)],
        &[("server", new.as_str()), ("helper", tied), ("deep", deep_old)],
        &[("server", old.as_str()), ("helper", of_new), ("deep", deep_new)],
    ]);
    let steps = compare(&builds[0], &builds[1]).steps;
    assert_eq!(steps.first, ["deep", "helper"]);
    assert_eq!(steps.why, [("server.handle_call/3".to_owned(), "helper.rate/1".to_owned())]);
    assert_eq!(steps.across, ["server.all/0"]);
    assert!(steps.tied.is_empty());

    // Of what calls the processes' new code neither can come before the other.
    let steps = compare(&builds[0], &builds[2]).steps;
    assert!(steps.first.is_empty() && steps.why.is_empty());
    assert_eq!(steps.tied, ["helper"]);

    // No state changes.
    let steps = compare(&builds[0], &builds[3]).steps;
    assert!(steps.first.is_empty() && steps.tied.is_empty());
}

#[test]
fn it_is_advised_where_the_change_calls_other_nodes() {
    if !compiled::has("erlc") {
        return;
    }
    let (of_old, of_new) =
        ("-export([rate/1]).\nrate({one}) -> 1.\n", "-export([rate/1]).\nrate(_) -> 2.\n");
    let (old, alone) = (server("{one}", "ok"), server("{one, two}", "ok"));
    let across = server("{one, two}", "rpc:call(node(), server, all, [])");
    let builds = compiled::erlang_builds(&[
        &[("server", old.as_str()), ("helper", of_old)],
        &[("server", alone.as_str()), ("helper", of_new)],
        &[("server", across.as_str()), ("helper", of_new)],
    ]);
    let advised = |new| {
        let findings = compare(&builds[0], new).findings;
        findings.iter().any(|one| one.kind.name() == "two_steps_between_nodes")
    };
    assert!(!advised(&builds[1]));
    assert!(advised(&builds[2]));
}
