//! Short ways to say what is explored.

use hot_patch_model::{Config, Faults, Rule, Second, Violation, explore};

/// Three nodes, these faults.
pub(crate) fn config(faults: Faults) -> Config {
    Config { faults, ..Config::new(3) }
}

pub(crate) fn without(config: Config, rule: Rule) -> Config {
    Config { rules: config.rules.without(rule), ..config }
}

pub(crate) fn with(config: Config, rule: Rule) -> Config {
    Config { rules: config.rules.with(rule), ..config }
}

pub(crate) fn rollback(faults: Faults) -> Config {
    Config { second: Second::Rollback, ..config(faults) }
}

#[track_caller]
pub(crate) fn holds(config: Config) -> usize {
    let outcome = explore(&config);
    assert!(outcome.complete, "stopped at {} states", outcome.states);
    if let Some(violation) = outcome.violation {
        panic!("{}", told(&config, &violation));
    }
    assert!(outcome.at_rest > 0, "nothing ever came to rest");
    outcome.states
}

#[track_caller]
pub(crate) fn breaks(config: Config, what: &str) {
    let violation = explore(&config).violation.expect("no promise is broken");
    assert!(violation.what.contains(what), "{}", told(&config, &violation));
    assert!(!violation.trace.is_empty());
}

fn told(config: &Config, violation: &Violation) -> String {
    let steps: Vec<String> = violation
        .trace
        .iter()
        .map(|(action, state)| format!("{action}\n    {}", state.describe(config)))
        .collect();
    format!("{}:\n{}", violation.what, steps.join("\n"))
}
