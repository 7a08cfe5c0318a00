//! For every rule of the judge before the loader, modules that break it and nothing else.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod code;
mod good;
mod module;
mod real;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use hot_patch_beam::LoadLimits;
use hot_patch_beam::Reading;
use hot_patch_beam::{Damage, LoaderRule, verify};
use support::beam::Beam;

/// A module that must be refused by `rule`.
struct Case {
    rule: LoaderRule,
    what: &'static str,
    beam: Beam,
    limits: LoadLimits,
}

fn case(rule: LoaderRule, what: &'static str, beam: Beam) -> Case {
    Case { rule, what, beam, limits: LoadLimits::default() }
}

fn cases() -> Vec<Case> {
    [code::cases(), tables::cases()].into_iter().flatten().collect()
}

fn verdict(Case { beam, limits, .. }: &Case) -> Result<(), Damage> {
    verify::judge(&beam.bytes(), limits).map(|_| ())
}

#[test]
fn each_is_refused_by_its_rule() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter_map(|case| {
            let verdict = match verdict(case) {
                Ok(()) => "it was accepted".to_owned(),
                Err(damage) if damage.rule() == case.rule.name() => return None,
                Err(damage) => damage.to_string(),
            };
            Some(format!("{}: {}: {verdict}", case.rule.name(), case.what))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_rule_has_a_case() {
    let covered: Vec<LoaderRule> = cases().iter().map(|case| case.rule).collect();
    for rule in LoaderRule::ALL {
        assert!(covered.contains(rule), "no module breaks {}", rule.name());
    }
}

#[test]
fn names_are_unique_and_texts_are_clauses() {
    for (index, rule) in LoaderRule::ALL.iter().enumerate() {
        let name = rule.name();
        assert!(LoaderRule::ALL.iter().skip(index + 1).all(|other| other.name() != name), "{name}");
        assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')));
        assert!(rule.what().starts_with(char::is_lowercase), "{name}");
        assert!(!rule.what().ends_with('.'), "{name}");
    }
}

#[test]
fn what_is_said_names_the_rule_and_the_place() {
    for case in cases() {
        let said = verdict(&case).unwrap_err().to_string();
        assert!(said.contains(&format!("rule {}).", case.rule.name())), "{said}");
        assert!(said.starts_with("The chunk \"") && said.len() < 300, "{said}");
    }
    let damaged = module::with(&[&module::op(7, &[module::u(2), module::u(2)])]);
    let Reading::Damaged(damage) = support::reading_of("m.beam", &damaged.bytes()) else {
        panic!()
    };
    assert_eq!(damage.rule(), "code_import");
    let said = "The chunk \"Code\" is malformed: a function of another module is called that is not \
                imported with that many arguments (byte 8, call_ext/2, rule code_import).";
    assert_eq!(damage.to_string(), said);
}
