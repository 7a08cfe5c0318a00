//! Judges real modules: all must pass.

use std::process::ExitCode;
use std::time::Instant;

use hot_patch_beam::LoadLimits;
use hot_patch_beam::verify;

use crate::seeds;

/// What is largest among the modules, and where.
#[derive(Default)]
struct Most(Vec<(&'static str, u64, String)>);

impl Most {
    fn see(&mut self, what: &'static str, value: u64, path: &str) {
        match self.0.iter_mut().find(|(other, ..)| *other == what) {
            None => self.0.push((what, value, path.to_owned())),
            Some(most) if most.1 < value => *most = (what, value, path.to_owned()),
            Some(_) => {}
        }
    }
}

pub(crate) fn run(folders: &[&str]) -> ExitCode {
    let started = Instant::now();
    let (mut passed, mut refused) = (0, 0);
    let mut most = Most::default();
    for path in seeds::find(folders) {
        let Some(bytes) = seeds::read(&path) else { continue };
        let path = path.display().to_string();
        match verify::judge(&bytes, &LoadLimits::default()) {
            Ok(load) => {
                passed += 1;
                most.see("atoms", load.atoms, &path);
                most.see("functions", load.functions, &path);
                most.see("words of literals", load.literal_words, &path);
                most.see("added literals", load.added_literals, &path);
                most.see("bytes of memory", load.memory, &path);
            }
            Err(damage) => {
                refused += 1;
                println!("{path}: {damage}");
            }
        }
    }
    for (what, value, path) in &most.0 {
        println!("most {what}: {value}, {path}");
    }
    println!("{passed} passed, {refused} refused, {:.1} s", started.elapsed().as_secs_f64());
    if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
