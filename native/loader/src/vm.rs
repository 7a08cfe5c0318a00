//! A VM that loads modules and may end.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

const SOURCE: &str = include_str!("child.erl");
const NAME: &str = "hot_patch_loader_child";

/// The most memory that the VM may take, in bytes.
const MEMORY: &str = "--data=3000000000";
/// Time of the processor, in hundredths of a second, that one module may take.
const MOST_TICKS: u64 = 2000;

/// Where VMs run: the system in a folder, and a folder in it for what they read.
pub(crate) struct Home {
    root: PathBuf,
    folder: PathBuf,
}

/// What came of modules.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All were loaded or refused: so many of each.
    Done { loaded: usize, refused: usize },
    /// The VM ended, or did not come to an end, at this module.
    Ended { at: usize, how: String },
}

/// A VM.
pub(crate) struct Vm {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    pub(crate) atoms: usize,
}

impl Home {
    /// Compiles what the VMs run, by the compiler of that system.
    pub(crate) fn new(root: &Path) -> io::Result<Home> {
        let folder = PathBuf::from(format!("/tmp/hot_patch_loader.{}", std::process::id()));
        let home = Home { root: root.to_owned(), folder };
        fs::create_dir_all(home.outside(""))?;
        fs::write(home.outside(&format!("{NAME}.erl")), SOURCE)?;
        let inside = home.folder.display().to_string();
        let status = home
            .command("erlc", &[])
            .args(["-o", &inside, &format!("{inside}/{NAME}.erl")])
            .status()?;
        if status.success() { Ok(home) } else { Err(io::Error::other("erlc failed")) }
    }

    fn outside(&self, name: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        self.root.join(folder).join(name)
    }

    /// A command in the system, within limits.
    fn command(&self, program: &str, limits: &[&str]) -> Command {
        let mut words = vec!["prlimit"];
        words.extend(limits);
        words.push("--core=0");
        let root = self.root.display().to_string();
        if root != "/" {
            words.extend(["chroot", root.as_str()]);
        }
        words.push(program);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("ERL_CRASH_DUMP_BYTES", "0").env("LC_ALL", "C.UTF-8");
        command
    }

    /// The VM's release of OTP.
    pub(crate) fn release(&self) -> io::Result<String> {
        let print = "io:put_chars(erlang:system_info(otp_release)), halt().";
        let output = self.command("erl", &[]).args(["-noshell", "-eval", print]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.outside(""));
    }
}

impl Vm {
    pub(crate) fn start(home: &Home) -> io::Result<Vm> {
        let folder = home.folder.display().to_string();
        let mut child = home
            .command("erl", &[MEMORY])
            .args(["-noshell", "+S", "1:1", "-kernel", "logger_level", "none"])
            .args(["-pa", &folder, "-s", NAME])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().expect("it was asked for");
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Vm { child, input, lines, atoms: 0 })
    }

    /// Puts modules before the loader, each with its name.
    pub(crate) fn load(
        &mut self,
        home: &Home,
        modules: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<Outcome> {
        let mut batch = Vec::new();
        for (name, file) in modules {
            batch.extend((file.len() as u32).to_be_bytes());
            batch.extend((name.len() as u16).to_be_bytes());
            batch.extend(name);
            batch.extend(file);
        }
        fs::write(home.outside("batch"), batch)?;
        let _ = fs::remove_file(home.outside("batch.at"));
        let _ = writeln!(self.input, "{}/batch", home.folder.display());
        self.wait(home)
    }

    fn wait(&mut self, home: &Home) -> io::Result<Outcome> {
        let at = || {
            let bytes = fs::read(home.outside("batch.at")).unwrap_or_default();
            bytes.first_chunk().map_or(0, |at| u32::from_be_bytes(*at) as usize)
        };
        let (mut last, mut since) = (at(), self.ticks());
        loop {
            match self.lines.recv_timeout(Duration::from_millis(500)) {
                Ok(line) => {
                    if let Some(outcome) = self.done(&line) {
                        return Ok(outcome);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if at() != last {
                        (last, since) = (at(), self.ticks());
                    } else if self.ticks().saturating_sub(since) > MOST_TICKS {
                        self.end();
                        return Ok(Outcome::Ended { at: at(), how: "does not end".to_owned() });
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let how = self.child.wait()?.to_string();
                    return Ok(Outcome::Ended { at: at(), how });
                }
            }
        }
    }

    fn done(&mut self, line: &str) -> Option<Outcome> {
        let mut words = line.strip_prefix("done ")?.split(' ').map(str::parse);
        let mut next = || words.next()?.ok();
        let (loaded, refused) = (next()?, next()?);
        self.atoms = next()?;
        Some(Outcome::Done { loaded, refused })
    }

    /// The time of the processor that the VM has taken, in hundredths of a second.
    fn ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let text = text.unwrap_or_default();
        let behind = text.rsplit(") ").next().unwrap_or_default();
        behind.split(' ').skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
    }
}
