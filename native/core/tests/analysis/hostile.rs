//! Damaged modules: nothing but an answer comes of them.

use hot_patch_core::analysis::{self, Request};

use crate::found;
use crate::support::beam::{Beam, one_function, raw_code, raw_literals, words};
use crate::support::compiled;
use crate::support::random::Random;

#[test]
fn files_that_are_no_modules() {
    let file: &[u8] = b"no module";
    let analysis =
        analysis::analyse(&Request { before: &[file], after: &[file], ..Default::default() });
    assert_eq!(found(&analysis), [("module_unreadable", ""), ("running_unreadable", "")]);
    assert!(!analysis.stateless);
}

/// What is found in a module against the empty one.
fn found_in(new: &Beam) -> Vec<(&'static str, String)> {
    let (old, new) = (one_function(&[]).bytes(), new.bytes());
    let request = Request { before: &[&old], after: &[&new], ..Default::default() };
    let analysis = analysis::analyse(&request);
    // What cannot be read is not compared.
    assert!(analysis.modules.iter().all(|module| module.functions.is_none()));
    assert!(!analysis.stateless);
    analysis.findings.iter().map(|one| (one.kind.name(), one.message.clone())).collect()
}

#[test]
fn instructions_of_a_newer_otp() {
    let newer = one_function(&[]).with(b"Code", raw_code(250, 3, 1, &[1, 0x10, 250, 3]));
    let [(kind, message)] = &found_in(&newer)[..] else { panic!("one finding") };
    assert_eq!(*kind, "code_not_compared", "{message}");
}

/// Damage is told as damage, and where it is.
#[test]
fn damage_is_not_taken_for_a_newer_otp() {
    let good = || one_function(&[64, 0x47, 0, 3]).with(b"LitT", raw_literals(&[b"\x83j"]));
    let instructions = |code: &[u8]| one_function(code);
    let fun =
        |words: [u32; 6]| [1_u32].iter().chain(&words).flat_map(|w| w.to_be_bytes()).collect();
    let cases: [(&str, Beam); 13] = [
        ("rule code_operand)", instructions(&[64, 0x67, 0, 3])),
        ("rule code_label_count)", good().with(b"Code", raw_code(180, 3, 1, &[1, 0x10, 19]))),
        ("rule code_literal)", instructions(&[64, 0x47, 0x50, 3])),
        ("rule code_label)", instructions(&[61, 0xf5])),
        ("rule code_import)", instructions(&[7, 0, 0xf0])),
        ("rule code_fun)", instructions(&[103, 0xf0])),
        ("rule code_string)", instructions(&[92, 0xf0, 0xf0])),
        (
            "rule code_label_count)",
            good().with(b"Code", raw_code(180, i32::MAX as u32, 1, &[1, 0x10, 3])),
        ),
        ("rule literal_table)", good().with(b"LitT", words(&[0, 9]))),
        ("rule literal_packed)", good().with(b"LitT", [&words(&[4])[..], &[0; 90]].concat())),
        ("rule literal_term)", good().with(b"LitT", raw_literals(&[b"\x83h"]))),
        ("rule lambda_entry)", good().with(b"FunT", fun([99, 0, 2, 0, 0, 0]))),
        ("rule lambda_entry)", good().with(b"FunT", fun([2, 0, 99_999, 0, 0, 0]))),
    ];
    for (expected, module) in cases {
        let [(kind, message)] = &found_in(&module)[..] else { panic!("{expected}: one finding") };
        assert_eq!(*kind, "module_unreadable", "{expected}: {message}");
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn damage_in_what_runs_is_told_too() {
    let (old, new) = (one_function(&[61, 0xf5]).bytes(), one_function(&[]).bytes());
    let request = Request { before: &[&old], after: &[&new], ..Default::default() };
    let analysis = analysis::analyse(&request);
    assert_eq!(found(&analysis), [("running_unreadable", "")]);
}

/// Modules with some bytes changed, compared with what they were.
#[test]
fn bytes_that_were_changed() {
    if !compiled::has("erlc") {
        return;
    }
    let text = "-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2, code_change/3]).
init(A) -> case A of 1 -> {ok, #{a => fun lists:map/2, b => [A]}}; _ -> {ok, new(A)} end.
new(A) -> {state, A, <<\"binary\", A:16>>, [{x, 1}, #{a => #{b => c}}]}.
handle_call(_, _, S) -> {reply, [X || X <- S, X > 1], S}.
handle_cast(_, S) -> try new(S) catch _:_ -> {noreply, S} end.
code_change(_, S, _) -> {ok, S}.";
    let modules = compiled::erlang(&[("m", text)]);
    let old = &modules[0].1;
    let mut random = Random(0x5eed_0003);
    let (mut read, mut tries) = (0, 0);
    // Most are no modules any more.
    while read < 1_000 && tries < 40_000 {
        tries += 1;
        let mut new = old.clone();
        for _ in 0..1 + random.below(3) {
            let at = 12 + random.below(new.len() - 12);
            new[at] = random.next() as u8;
        }
        let request = Request { before: &[old], after: &[&new], ..Default::default() };
        let analysis = analysis::analyse(&request);
        read += analysis.modules.len();
        assert!(!analysis.encode().is_empty());
    }
    assert_eq!(read, 1_000, "of {tries}");
}
