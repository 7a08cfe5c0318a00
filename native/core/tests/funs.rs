//! Which funs of two really compiled versions of a module belong together.

#![allow(clippy::indexing_slicing)]

#[path = "support/mod.rs"]
mod support;

use hot_patch_beam::{Stop, etf};
use hot_patch_core::funs::{self, Renewal};
use hot_patch_core::requests::{self, Request};
use support::compiled;

/// The funs of `m` in each of the versions against the first.
fn against_first(versions: &[&str]) -> Vec<Renewal> {
    let modules: Vec<[(&str, &str); 1]> = versions.iter().map(|text| [("m", *text)]).collect();
    let modules: Vec<&[(&str, &str)]> = modules.iter().map(|one| one.as_slice()).collect();
    let builds = compiled::erlang_builds(&modules);
    let first = builds[0][0].1.as_slice();
    let pairs: Vec<(&[u8], &[u8])> =
        builds[1..].iter().map(|build| (first, build[0].1.as_slice())).collect();
    funs::renewals(&pairs).into_iter().map(|one| one.expect("it can be read")).collect()
}

const EXPORTS: &str = "-compile([export_all, nowarn_export_all]).\n";

/// The pairs of two texts, without what stands before all of them.
fn pairs(old: &str, news: &[&str]) -> Vec<Vec<(usize, usize)>> {
    let texts: Vec<String> =
        std::iter::once(&old).chain(news).map(|text| format!("{EXPORTS}{text}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    against_first(&texts).iter().map(|one| one.pairs().to_vec()).collect()
}

#[test]
fn the_same_fun_is_found_wherever_it_is_numbered() {
    if !compiled::has("erlc") {
        return;
    }
    let old = "k(X) -> {fun(Y) -> {X, Y} end, fun() -> X end}.\nl(X) -> fun(Z) -> [Z | X] end.";
    let before = format!("a() -> fun() -> a end.\n{old}");
    let renamed = "k(X) -> {fun(Y) -> {X, Y} end, fun() -> X end}.\nn(X) -> fun(Z) -> [Z | X] end.";
    let swapped = "k(X) -> {fun() -> X end, fun(Y) -> {X, Y} end}.\nl(X) -> fun(Z) -> [Z | X] end.";
    let within = "k(X) -> {fun(Y) -> {X, Y} end, fun() -> new end, fun() -> X end}.\nl(X) -> fun(Z) -> [Z | X] end.";
    let found = pairs(old, &[old, &before, renamed, swapped, within]);
    assert_eq!(found[0], [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(found[1], [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(found[2], [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(found[3], [(0, 1), (1, 0), (2, 2)]);
    assert_eq!(found[4].len(), 3);
}

#[test]
fn funs_within_funs_and_comprehensions_survive_renumbering() {
    if !compiled::has("erlc") {
        return;
    }
    let old = "k(X) -> fun(Y) -> fun(Z) -> {X, Y, Z} end end.\n\
        r(N) -> fun F(0) -> N; F(M) -> F(M - 1) end.\n\
        c(L) -> fun() -> [fun() -> E end || E <- L] end.\n\
        e() -> fun c/1.";
    let new = format!("a(L) -> [fun() -> {{E}} end || E <- L].\n{old}");
    let renewal = &against_first(&[&format!("{EXPORTS}{old}"), &format!("{EXPORTS}{new}")])[0];
    let [before, after] = renewal.funs();
    assert_eq!(renewal.pairs().len(), before.len());
    assert_eq!(before.len() + 1, after.len());
    for (one, other) in renewal.pairs() {
        let (one, other) = (before[*one], after[*other]);
        assert_eq!((one.2, one.3), (other.2, other.3));
        assert_ne!(one.1, other.1);
    }
}

#[test]
fn another_body_is_the_same_fun_only_where_its_values_are_the_same() {
    if !compiled::has("erlc") {
        return;
    }
    let old = "k(X, Y) -> {v, fun(Z) -> {X, Y, Z} end}.";
    // What makes it is the same: only its body has changed.
    let body = "k(X, Y) -> {v, fun(Z) -> {new, X, Y, Z} end}.";
    // Another value goes into it.
    let value = "k(X, Y) -> {v, fun(Z) -> {Y + 1, X, Z} end, X}.";
    let swapped = "k(Y, X) -> {v, fun(Z) -> {new, X, Y, Z} end}.";
    let arity = "k(X, Y) -> {v, fun(Z, _) -> {X, Y, Z} end}.";
    let fewer = "k(X, _) -> {v, fun(Z) -> {X, Z} end}.";
    let found = pairs(old, &[body, value, swapped, arity, fewer]);
    assert_eq!(found[0], [(0, 0)]);
    assert!(found[1].is_empty(), "{found:?}");
    assert!(found[3].is_empty() && found[4].is_empty(), "{found:?}");
    // By the names of its variables that is another, by its code it is the same: the first
    // argument goes in first, or the second does, and the bodies tell which.
    assert!(found[2].len() <= 1);
}

#[test]
fn without_values_the_place_will_do() {
    if !compiled::has("erlc") {
        return;
    }
    let old = "k() -> #{version => 1, f => fun(X) -> {one, X} end}.";
    let new = "k() -> #{version => 2, f => fun(X) -> {two, X} end}.";
    let more = "k() -> #{version => 2, f => fun(X) -> {two, X} end, g => fun(X) -> {g, X} end}.";
    let elsewhere = "l() -> #{version => 2, f => fun(X) -> {two, X} end}.";
    let found = pairs(old, &[new, more, elsewhere]);
    assert_eq!(found[0], [(0, 0)]);
    assert!(found[1].is_empty() && found[2].is_empty(), "{found:?}");
}

#[test]
fn none_belongs_to_two() {
    if !compiled::has("erlc") {
        return;
    }
    let two = "k(X) -> {fun() -> X end, fun() -> X end}.\nl(X) -> fun() -> X end.";
    let one = "k(X) -> fun() -> X end.";
    for pairs in pairs(two, &[one, two]).iter().chain(&pairs(one, &[two])) {
        let (mut old, mut new): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let count = pairs.len();
        old.sort_unstable();
        new.sort_unstable();
        old.dedup();
        new.dedup();
        assert_eq!((old.len(), new.len()), (count, count));
        assert!(count > 0);
    }
}

#[test]
fn elixir_captures_and_closures_are_funs_too() {
    if !compiled::has("elixir") {
        return;
    }
    let old = "defmodule M do\n  def a(x), do: fn y -> {x, y} end\n  def b, do: &(&1 + 1)\n  def c, do: &a/1\nend";
    let new = "defmodule M do\n  def z(x), do: fn -> {:z, x} end\n  def a(x), do: fn y -> {x, y} end\n  def b, do: &(&1 + 2)\n  def c, do: &a/1\nend";
    let builds = compiled::elixir_builds(&[old, new]);
    let files: Vec<&[u8]> = builds.iter().map(|build| build[0].1.as_slice()).collect();
    let renewal = funs::renewals(&[(files[0], files[1])]).remove(0).unwrap();
    assert_eq!(renewal.pairs().len(), renewal.funs()[0].len());
}

#[test]
fn a_damaged_file_says_so_and_the_others_are_compared() {
    if !compiled::has("erlc") {
        return;
    }
    let build = compiled::erlang(&[("m", "-export([f/1]).\nf(X) -> fun(Y) -> {X, Y} end.")]);
    let good = build[0].1.as_slice();
    let all = funs::renewals(&[(good, b"FOR1"), (good, good), (b"", good)]);
    assert!(all[0].is_err() && all[2].is_err());
    assert_eq!(all[1].as_ref().unwrap().pairs(), [(0, 0)]);
    // Whatever byte is another: an answer, and no fun that is not there.
    for place in 0..good.len() {
        let mut other = good.to_vec();
        other[place] ^= 0x55;
        if let Ok(renewal) = &funs::renewals(&[(good, &other)])[0] {
            let [old, new] = renewal.funs();
            assert!(renewal.pairs().iter().all(|(one, two)| *one < old.len() && *two < new.len()));
        }
    }
}

#[test]
fn it_is_asked_by_name_and_answers_in_order() {
    if !compiled::has("erlc") {
        return;
    }
    let build = compiled::erlang(&[("m", "-export([f/1]).\nf(X) -> fun(Y) -> {X, Y} end.")]);
    let good = build[0].1.as_slice();
    let ask = |blobs: &[&[u8]]| {
        let request = Request { name: "funs", blobs, options: b"\x83j" };
        requests::run(&request, &Stop::default(), |reply| hot_patch_core::reply::encode(reply))
    };
    let show = |bytes: &[u8]| {
        etf::decode(bytes, etf::Limits { depth: 16, terms: 1_000 }).unwrap().to_string()
    };
    let uniq = funs::renewals(&[(good, good)])[0].as_ref().unwrap().funs()[0][0].1;
    let fun = format!("[{{0,{uniq},1,1}}]");
    let answer = show(&ask(&[good, good, b"x", good]));
    assert!(answer.starts_with(&format!("[{{'ok',{fun},{fun},[{{0,0}}]}},{{'error',")), "{answer}");
    assert!(show(&ask(&[good])).starts_with("{'failed','bad_request'"));
    assert_eq!(show(&ask(&[])), "[]");
}
