//! Damages modules, judges them, and puts those that pass before a loader.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hot_patch_beam::LoadLimits;
use hot_patch_beam::verify;

use crate::module::Module;
use crate::mutate::{Seed, Way};
use crate::random::Random;
use crate::seeds;
use crate::vm::{Home, Outcome, Vm};

/// What is to be done.
pub(crate) struct Campaign {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) root: PathBuf,
    pub(crate) findings: PathBuf,
    pub(crate) count: u64,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    /// Whether what breaks a rule comes before the loader too: to see that VMs do end.
    pub(crate) blind: bool,
}

/// Larger modules take too long.
const LARGEST: usize = 24 * 1024;
/// How many copies of a module are made before the next is taken.
const EACH: usize = 64;
/// How many modules a VM gets at once.
const BATCH: usize = 256;
/// A VM with so many atoms, or so many modules behind it, gives way to a new one.
const MOST_ATOMS: usize = 500_000;
const MOST_MODULES: usize = 20_000;

#[derive(Default)]
struct Figures {
    damaged: BTreeMap<Way, [u64; 2]>,
    refused: BTreeMap<&'static str, u64>,
    loaded: u64,
    refused_by_loader: u64,
    ended: u64,
}

struct Run<'c> {
    campaign: &'c Campaign,
    home: Home,
    release: String,
    vm: Option<(Vm, usize)>,
    waiting: Vec<(Vec<u8>, Vec<u8>)>,
    figures: Figures,
}

/// True if no VM ended.
pub(crate) fn run(campaign: &Campaign) -> io::Result<bool> {
    let home = Home::new(&campaign.root)?;
    let release = home.release()?;
    let figures = Figures::default();
    let mut run = Run { campaign, home, release, vm: None, waiting: Vec::new(), figures };
    let started = Instant::now();
    let seeds = read_seeds(&campaign.folders);
    println!("OTP {}: {} modules to be damaged", run.release, seeds.len());
    if seeds.len() < 2 {
        return Err(io::Error::other("there are no modules"));
    }
    let mut random = Random::new(campaign.seed);
    let (mut made, mut said) = (0, Instant::now());
    while made < campaign.count && started.elapsed() < Duration::from_secs(campaign.seconds) {
        let seed = random.one_of(&seeds);
        let other = random.one_of(&seeds);
        for _ in 0..EACH {
            let (way, file) = seed.damage(other, &mut random);
            run.take(way, file)?;
            made += 1;
        }
        if said.elapsed() > Duration::from_secs(60) {
            println!("OTP {}: {made} so far, {} VMs ended", run.release, run.figures.ended);
            said = Instant::now();
        }
    }
    run.load()?;
    run.figures.print(&run.release, started.elapsed());
    Ok(run.figures.ended == 0)
}

fn read_seeds(folders: &[PathBuf]) -> Vec<Seed> {
    let folders: Vec<&str> = folders.iter().filter_map(|folder| folder.to_str()).collect();
    let files = seeds::find(&folders).into_iter().filter_map(|path| seeds::read(&path));
    let small = files.filter_map(|file| Seed::new(&file)).filter(|seed| seed.size() < LARGEST);
    small.collect()
}

impl Run<'_> {
    fn take(&mut self, way: Way, file: Vec<u8>) -> io::Result<()> {
        let [damaged, passed] = self.figures.damaged.entry(way).or_default();
        *damaged += 1;
        match verify::judge(&file, &LoadLimits::default()) {
            Ok(_) => {
                *passed += 1;
                self.waiting.push((named(&file).unwrap_or_default(), file));
            }
            Err(damage) => {
                *self.figures.refused.entry(damage.rule()).or_default() += 1;
                if self.campaign.blind {
                    self.waiting.extend(named(&file).map(|name| (name, file)));
                }
            }
        }
        if self.waiting.len() >= BATCH { self.load() } else { Ok(()) }
    }

    /// Puts all that wait before the loader. Behind a module at which the VM ends the next go on in
    /// a new VM.
    fn load(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let (mut vm, behind) = match self.vm.take() {
                Some(vm) => vm,
                None => (Vm::start(&self.home)?, 0),
            };
            match vm.load(&self.home, &self.waiting)? {
                Outcome::Done { loaded, refused } => {
                    self.figures.loaded += loaded as u64;
                    self.figures.refused_by_loader += refused as u64;
                    let behind = behind + self.waiting.len();
                    self.waiting.clear();
                    if vm.atoms < MOST_ATOMS && behind < MOST_MODULES {
                        self.vm = Some((vm, behind));
                    }
                }
                Outcome::Ended { at, how } => {
                    let at = at.min(self.waiting.len() - 1);
                    let rest = self.waiting.split_off(at + 1);
                    let before = std::mem::replace(&mut self.waiting, rest);
                    self.found(&before, &how)?;
                }
            }
        }
        Ok(())
    }

    /// The last of these modules has ended a VM, it seems. One that does it alone is kept by
    /// itself; if none does, all are kept in their order.
    fn found(&mut self, modules: &[(Vec<u8>, Vec<u8>)], how: &str) -> io::Result<()> {
        self.figures.ended += 1;
        let number = self.figures.ended;
        let name = format!("otp{}-seed{}-{number}", self.release, self.campaign.seed);
        let folder = &self.campaign.findings;
        fs::create_dir_all(folder)?;
        let Some((last, before)) = modules.split_last() else { return Ok(()) };
        let alone = Vm::start(&self.home)?.load(&self.home, std::slice::from_ref(last))?;
        if let Outcome::Ended { how, .. } = alone {
            println!("OTP {}: {name}.beam: {how}, {}", self.release, judged(&last.1));
            return fs::write(folder.join(format!("{name}.beam")), &last.1);
        }
        println!("OTP {}: {name}: {how}, but not by the last module alone", self.release);
        for (place, (_, file)) in before.iter().chain([last]).enumerate() {
            fs::write(folder.join(format!("{name}-{place:03}.beam")), file)?;
        }
        Ok(())
    }
}

impl Figures {
    fn print(&self, release: &str, time: Duration) {
        println!("\n| OTP {release}: damaged | modules | passed by the rules |\n|---|---|---|");
        for way in Way::ALL {
            let [damaged, passed] = self.damaged.get(&way).copied().unwrap_or_default();
            println!("| {} | {damaged} | {passed} |", way.name());
        }
        let sum = |which: usize| self.damaged.values().map(|both| both[which]).sum::<u64>();
        println!("| all | {} | {} |", sum(0), sum(1));
        println!(
            "\nOf those passed the loader has loaded {} and refused {}; {} have ended the VM. {} s.",
            self.loaded,
            self.refused_by_loader,
            self.ended,
            time.as_secs()
        );
        let mut rules: Vec<_> = self.refused.iter().collect();
        rules.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let rules: Vec<_> = rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        println!("Refused by: {}.", rules.join(", "));
    }
}

/// What the rules say of a file.
fn judged(file: &[u8]) -> &'static str {
    verify::judge(file, &LoadLimits::default()).map_or_else(|damage| damage.rule(), |_| "passed")
}

/// The name of the module in a file, if it could be an atom.
fn named(file: &[u8]) -> Option<Vec<u8>> {
    let name = Module::read(file)?.name()?.to_vec();
    std::str::from_utf8(&name).is_ok_and(|name| name.chars().count() < 256).then_some(name)
}

/// Loads the files one by one, each in a VM of its own, and says what came of each.
pub(crate) fn replay(root: &Path, files: &[PathBuf]) -> io::Result<bool> {
    let home = Home::new(root)?;
    let mut all_live = true;
    for path in files {
        let file = fs::read(path)?;
        let judged = judged(&file);
        let name = named(&file).unwrap_or_default();
        let outcome = Vm::start(&home)?.load(&home, &[(name, file)])?;
        all_live &= matches!(outcome, Outcome::Done { .. });
        println!("{}: {judged}: {outcome:?}", path.display());
    }
    Ok(all_live)
}
