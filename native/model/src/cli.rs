//! What can be asked on the command line.

use hot_patch_model::{Config, Rule, Second};

pub(crate) enum Request {
    Help,
    Explore(Box<Config>),
}

const HELP: &str = "\
Looks at everything that can happen in a model of HotPatch's cluster protocol

One operation, A, is begun by node 0 on all nodes. Every order of messages, and every place for
every fault within the budget, is tried. Printed is the shortest way to a broken promise, if there
is one. The states grow fast with the faults: begin with few.

Usage: hot_patch_model [OPTIONS]

Options:
  --nodes COUNT       2 to 4 nodes [default: 3]
  --crashes COUNT     crashes of nodes, which start again; this and the next: 0 to 3 [default: 0]
  --deaths COUNT      deaths of a coordinator alone [default: 0]
  --cuts COUNT        broken connections, which come back [default: 0]
  --failures COUNT    votes of no, failed conversions, failed loads [default: 0]
  --delays COUNT      timers that fire, answers that come too late [default: 0]
  --second WHAT       rollback: B takes A back when a member could not load it
                      apply: B is another patch, begun by node 1 at any time [default: none]
  --fresh-disks yes   who crashes comes back with an empty disk
  --strict yes        find also what catching up mends: a decision that a member does not wait for
                      any more, a member that takes back what is known to be decided
  --without RULE      leave a rule out; can be given several times
  --with RULE         add a rule that is not in the protocol
  --max-states COUNT  where to stop [default: 50000000]; a state takes about 55 bytes
  --help              this text

Exit codes:
  0  no promise is broken
  1  one is, or the limit was reached
  2  wrong usage

Examples:
  hot_patch_model --crashes 2 --cuts 1
  hot_patch_model --crashes 1 --without decisions-count
  hot_patch_model --second rollback --failures 1
";

/// The help, with the rules.
pub(crate) fn help() -> String {
    let mut help = format!("{HELP}\nRules:\n");
    for rule in Rule::ALL {
        let absent =
            if hot_patch_model::Rules::default().has(rule) { "" } else { " (only --with)" };
        help += &format!("  {:<20}{}{absent}\n", rule.name(), rule.text());
    }
    help
}

pub(crate) fn parse(arguments: &[String]) -> Result<Request, String> {
    let mut config = Config::new(3);
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        if option == "--help" || option == "-h" {
            return Ok(Request::Help);
        }
        let value = rest.next().ok_or_else(|| format!("{option} needs a value"))?;
        set(&mut config, option, value)?;
    }
    if config.second == Second::Apply && config.rules.has(Rule::RollbackKept) {
        return Err("rollback-kept is about --second rollback".to_string());
    }
    Ok(Request::Explore(Box::new(config)))
}

fn set(config: &mut Config, option: &str, value: &str) -> Result<(), String> {
    let faults = &mut config.faults;
    match option {
        "--nodes" => config.nodes = number(option, value, 2..=4)?,
        "--crashes" => faults.crashes = number(option, value, 0..=3)? as u8,
        "--deaths" => faults.deaths = number(option, value, 0..=3)? as u8,
        "--cuts" => faults.cuts = number(option, value, 0..=3)? as u8,
        "--failures" => faults.failures = number(option, value, 0..=3)? as u8,
        "--delays" => faults.delays = number(option, value, 0..=3)? as u8,
        "--fresh-disks" => config.fresh_disks = yes(option, value)?,
        "--strict" => config.strict = yes(option, value)?,
        "--max-states" => config.max_states = number(option, value, 1..=4_000_000_000)?,
        "--second" => config.second = second(value)?,
        "--without" => config.rules = config.rules.without(rule(value)?),
        "--with" => config.rules = config.rules.with(rule(value)?),
        _ => return Err(format!("there is no option {option}")),
    }
    Ok(())
}

fn number(
    option: &str,
    value: &str,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("{option} is {} to {}, not {value}", range.start(), range.end()))
}

fn yes(option: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{option} is yes or no, not {value}")),
    }
}

fn second(value: &str) -> Result<Second, String> {
    match value {
        "none" => Ok(Second::None),
        "rollback" => Ok(Second::Rollback),
        "apply" => Ok(Second::Apply),
        _ => Err(format!("--second is none, rollback or apply, not {value}")),
    }
}

fn rule(value: &str) -> Result<Rule, String> {
    Rule::ALL
        .into_iter()
        .find(|rule| rule.name() == value)
        .ok_or_else(|| format!("there is no rule {value}"))
}
