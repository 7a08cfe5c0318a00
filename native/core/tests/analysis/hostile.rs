//! Damaged modules: nothing but an answer comes of them.

use hot_patch_core::analysis::{self, Request};

use crate::support::beam::{AtomFormat, minimal, minimal_code};
use crate::support::compiled;
use crate::support::random::Random;

#[test]
fn files_that_are_no_modules() {
    let file: &[u8] = b"no module";
    let analysis =
        analysis::analyse(&Request { before: &[file], after: &[file], ..Default::default() });
    assert_eq!(analysis.findings.len(), 1);
    assert_eq!(analysis.findings[0].kind.name(), "module_unreadable");
}

#[test]
fn instructions_that_are_unknown() {
    let old = minimal(AtomFormat::Utf8);
    let new = old.clone().with(b"Code", minimal_code(&[250]));
    let (old, new) = (old.bytes(), new.bytes());
    let request = Request { before: &[&old], after: &[&new], ..Default::default() };
    let analysis = analysis::analyse(&request);
    assert_eq!(analysis.findings[0].kind.name(), "module_unreadable");
    assert!(analysis.modules.is_empty());
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
