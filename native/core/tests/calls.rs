//! Where the functions of really compiled modules lead.

#![allow(clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use hot_patch_core::calls::{self, Leads};
use support::compiled;

const EXPORTS: &str = "-compile([export_all, nowarn_export_all]).\n";

fn leads(modules: &[(&str, &str)], from: &[&str]) -> Vec<Leads> {
    let texts: Vec<(&str, String)> =
        modules.iter().map(|(name, text)| (*name, format!("{EXPORTS}{text}"))).collect();
    let texts: Vec<(&str, &str)> =
        texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let builds = compiled::erlang_builds(&[texts.as_slice()]);
    let files: Vec<&[u8]> = builds[0].iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let from: Vec<calls::Name> = from.iter().map(|name| ("a".into(), (*name).into(), 1)).collect();
    calls::leads(&files, &from)
}

fn out(leads: &Leads) -> Vec<String> {
    leads.out.iter().map(|(module, name, arity)| format!("{module}:{name}/{arity}")).collect()
}

#[test]
fn calls_are_followed_within_the_modules_and_named_out_of_them() {
    if !compiled::has("erlc") {
        return;
    }
    let a = "f(X) -> b:g(g(X)).\ng(X) -> lists:map(fun(Y) -> c:d(Y) end, X).\nidle(X) -> e:f(X).\n\
        lost(X) -> b:nothing(X).";
    let b = "g(X) -> case X of [] -> a:g(X); _ -> file:delete(X) end.";
    let found = leads(&[("a", a), ("b", b)], &["f", "g", "lost", "none"]);
    assert_eq!(out(&found[0]), ["c:d/1", "file:delete/1", "lists:map/2"]);
    assert_eq!(out(&found[1]), ["c:d/1", "lists:map/2"]);
    assert_eq!(out(&found[2]), ["b:nothing/1"]);
    assert_eq!(out(&found[3]), ["a:none/1"]);
    assert!(found.iter().all(|one| one.unknown.is_empty()));
}

#[test]
fn what_has_no_name_is_named() {
    if !compiled::has("erlc") {
        return;
    }
    let a = "s(X) -> X ! X.\nr(X) -> receive X -> X end.\nw(X) -> receive after X -> X end.\n\
        m(X) -> X:f(1).\nc(X) -> X().\np(X) -> {X, self()}.\nq(X) -> X:f().";
    let found = leads(&[("a", a)], &["s", "r", "w", "m", "c", "p", "q"]);
    let wanted = ["erlang:!/2", "erlang:receive/0", "erlang:receive/0", "erlang:apply/3"];
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(out(found), [wanted]);
    }
    assert_eq!(out(&found[4]), ["erlang:fun/0"]);
    assert_eq!(out(&found[5]), ["erlang:self/0"]);
    // Elixir's `map.field` looks like it.
    assert!(out(&found[6]).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_is_no_reason_to_call_it_harmless() {
    let found = calls::leads(&[b"no module"], &[("a".into(), "f".into(), 1)]);
    assert_eq!(found[0].unknown.len(), 1);
}
