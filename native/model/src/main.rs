//! Explores one configuration of the model, and prints what was looked at and what was found.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

use hot_patch_model::{Config, Outcome, explore};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match cli::parse(&arguments) {
        Ok(cli::Request::Help) => {
            print!("{}", cli::help());
            ExitCode::SUCCESS
        }
        Ok(cli::Request::Explore(config)) => run(&config),
        Err(message) => {
            eprintln!("hot_patch_model: {message}; see --help");
            ExitCode::from(2)
        }
    }
}

fn run(config: &Config) -> ExitCode {
    let started = Instant::now();
    let outcome = explore(config);
    let seconds = started.elapsed().as_secs_f64();
    print(config, &outcome);
    println!("{seconds:.1} s, {} MB for the states", outcome.bytes / 1_000_000);
    match (&outcome.violation, outcome.complete) {
        (None, true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn print(config: &Config, outcome: &Outcome) {
    if let Some(violation) = &outcome.violation {
        println!("Broken: {}\n", violation.what);
        for (number, (action, state)) in violation.trace.iter().enumerate() {
            println!("{:>3}. {action}\n       {}", number + 1, state.describe(config));
        }
        println!();
    } else if outcome.complete {
        println!("No promise is broken.");
    } else {
        println!("No promise is broken so far: stopped at the limit of states.");
    }
    println!(
        "{} states, {} steps, depth {}, {} at rest",
        outcome.states, outcome.steps, outcome.depth, outcome.at_rest
    );
}
