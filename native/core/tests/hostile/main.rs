//! For every rule, archives that break it and nothing else.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod content;
mod entries;
mod load;
mod manifest;
mod structure;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;

use hot_patch_core::{Options, Rule, read_archive};

/// An archive that must be refused by `rule`.
struct Case {
    rule: Rule,
    what: &'static str,
    bytes: Vec<u8>,
    options: Options,
}

fn case(rule: Rule, what: &'static str, bytes: Vec<u8>) -> Case {
    Case { rule, what, bytes, options: Options::default() }
}

fn cases() -> Vec<Case> {
    let manifests = [manifest::cases(), upgrade::cases()].into_iter().flatten().collect();
    [structure::cases(), entries::cases(), content::cases(), load::cases(), manifests]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn each_is_refused_by_its_rule() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter_map(|Case { rule, what, bytes, options }| {
            let verdict = match read_archive(bytes, options) {
                Ok(_) => "it was accepted".to_owned(),
                Err(refusal) if refusal.rule == *rule => return None,
                Err(refusal) => format!("{}: {refusal}", refusal.rule.name()),
            };
            Some(format!("{}: {what}: {verdict}", rule.name()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_rule_has_a_case() {
    // Memory that runs out cannot be had on demand.
    let exempt = [Rule::OutOfMemory];
    let covered: Vec<Rule> = cases().iter().map(|case| case.rule).chain(exempt).collect();
    for rule in Rule::ALL {
        assert!(covered.contains(rule), "no archive breaks {}", rule.name());
    }
}

#[test]
fn names_are_unique_and_texts_are_sentences() {
    for (index, rule) in Rule::ALL.iter().enumerate() {
        let name = rule.name();
        assert!(Rule::ALL.iter().skip(index + 1).all(|other| other.name() != name), "{name}");
        assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')));
        assert!(rule.what().ends_with('.') && rule.next_step().ends_with('.'), "{name}");
    }
}

#[test]
fn refusals_are_safe_to_print() {
    for Case { bytes, options, .. } in cases() {
        let refusal = read_archive(&bytes, &options).unwrap_err();
        assert!(refusal.message.ends_with('.'), "{refusal}");
        assert!(refusal.message.len() < 2000);
        let texts = [refusal.entry.as_deref().unwrap_or_default(), &refusal.message];
        assert!(texts.iter().all(|text| !text.chars().any(char::is_control)), "{refusal}");
    }
}
